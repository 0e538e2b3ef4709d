"""The exact invariance behind every alpha rule: which changes of alpha, start and rates leave training as it is.

With Adam at epsilon 0, without weight decay and clipping, `y = W x + s B A x` trained from (A0, B0) at the rates (a, b)
passes through the same functions as with

    (s, A0, B0, a, b)  ->  (s / (p q), p A0, q B0, p a, q b)

for any p, q > 0 (LoRA Without Regret 2025, "Parametric invariances"; here with B0, which it has at 0): Adam's step does
not see the gradients' scale, so that A and B are p and q times what they were at every step. One rate for both needs
p = q, hence A0 rescaled as well: changing lora_alpha alone is *not* a change of the learning rate.
"""

from dataclasses import dataclass

from welltuned.errors import InputError, problem


@dataclass(frozen=True)
class Parametrisation:
    """What the invariance acts on: the multiplier, the sizes of both starts (as factors), and both learning rates."""

    scaling: float
    start_a: float = 1.0
    start_b: float = 1.0
    rate_a: float = 1.0
    rate_b: float = 1.0


def rescaled(given: Parametrisation, p: float, q: float) -> Parametrisation:
    """Return the equal parametrisation whose A is p and whose B is q times the given one's.

    >>> rescaled(Parametrisation(1.0, rate_a=1e-3, rate_b=1e-3), 0.5, 0.5)
    Parametrisation(scaling=4.0, start_a=0.5, start_b=0.5, rate_a=0.0005, rate_b=0.0005)
    """
    if p <= 0 or q <= 0:
        raise InputError(problem("rescaling", (p, q), "two factors > 0", "take p = q = (old alpha / new alpha)^1/2"))
    return Parametrisation(
        given.scaling / (p * q), p * given.start_a, q * given.start_b, p * given.rate_a, q * given.rate_b
    )


def with_scaling(given: Parametrisation, scaling: float) -> Parametrisation:
    """Return the equal parametrisation with another multiplier and one factor for both of its rates."""
    factor = (given.scaling / scaling) ** 0.5
    return rescaled(given, factor, factor)
