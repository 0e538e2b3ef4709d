"""How large chance is beside a difference: the noise of seeds and that of items, from whatever the table gives.

The difference of two configurations over s seeds each, on n test items that both answer, has a standard error between
    low  = max(seeds, sqrt(PAIRED_SHARE) * items / sqrt(s))    the two agree on most items
    high = sqrt(seeds^2 + items^2)                             the two answer independently
with seeds^2 = sd_a^2/s_a + sd_b^2/s_b (Welch's degrees of freedom) and items^2 = p_a(1-p_a)/n + p_b(1-p_b)/n
(binomial). A table does not say how often two methods answer differently, so that both ends are needed: what low cannot
tell apart is noise, and what high tells apart is not.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from welltuned.audit.configurations import Configuration
from welltuned.audit.records import Problem, Side

# Variance of the paired difference over that of independent answers: the lowest of 81 pairs of reruns at equal batch
# size in tests/recorded/batch_by_method.jsonl.gz (median 0.50); measured.
PAIRED_SHARE = 0.2
ENOUGH = 4  # degrees of freedom that two methods' own repeats must have before those of all methods are taken; assumed
OWN = 3  # seeds of each from which their own spread is taken; assumed


@dataclass(frozen=True)
class SeedNoise:
    """The standard deviation of single runs of one configuration, and where it is from."""

    sd: float
    degrees: float
    source: str
    is_lower_bound: bool  # the repeats share a seed, so that what a seed changes is not in it


@dataclass(frozen=True)
class Noise:
    """The standard error of one difference. None: the table gives nothing that it could be computed from."""

    seeds: float | None  # standard error from seeds alone
    items: float | None  # standard error from test items alone, answered independently
    low: float | None
    high: float | None  # None: the noise of seeds is not known, or only from below
    degrees: float  # of freedom, for Student's t; infinite where only items are known
    source: str

    @property
    def known(self) -> bool:
        """Say whether there is any noise to compare with."""
        return self.low is not None and self.low > 0


def pooled(configurations: Sequence[Configuration], where: str) -> SeedNoise | None:
    """Return the standard deviation within repeated configurations, pooled over them; None without repeats.

    s^2 = sum (n_i - 1) s_i^2 / sum (n_i - 1), over configurations in which nothing diverged.
    """
    repeated = [one for one in configurations if one.sd is not None and one.num_seeds > 1 and not one.num_diverged]
    degrees = sum(one.num_seeds - 1 for one in repeated)
    if not degrees:
        return None
    squares = math.fsum((one.num_seeds - 1) * (one.sd or 0.0) ** 2 for one in repeated)
    same = any(one.shares_seed for one in repeated)
    return SeedNoise(math.sqrt(squares / degrees), degrees, f"{where}, {degrees} degrees of freedom", same)


def by_problem(configurations: Sequence[Configuration]) -> dict[Problem, SeedNoise]:
    """Return the pooled noise of seeds of each problem that has repeats."""
    members: defaultdict[Problem, list[Configuration]] = defaultdict(list)
    for one in configurations:
        members[one.problem].append(one)
    found = {where: pooled(here, "repeats of all methods") for where, here in members.items()}
    return {where: noise for where, noise in found.items() if noise is not None}


def of_difference(
    one: Configuration, other: Configuration, configurations: Sequence[Configuration], side: Side
) -> Noise:
    """Return the noise of the difference of two configurations' means, given all configurations of their problem."""
    seeds, degrees, source, bound = _seeds(one, other, configurations)
    items = _items(one, other, side)
    if seeds is None and items is None:
        return Noise(None, None, None, None, math.inf, source)
    least = (items or 0.0) * math.sqrt(PAIRED_SHARE / min(one.num_seeds, other.num_seeds))
    return Noise(
        seeds=seeds,
        items=items,
        low=max(seeds or 0.0, least),
        high=None if seeds is None or bound else math.hypot(seeds, items or 0.0),
        degrees=degrees,
        source=source if items is None else f"{source}; binomial noise of the test items",
    )


def _seeds(
    one: Configuration, other: Configuration, configurations: Sequence[Configuration]
) -> tuple[float | None, float, str, bool]:
    """Return (standard error from seeds, degrees of freedom, source, whether it is only a lower bound)."""
    if one.sd is not None and other.sd is not None and min(one.num_seeds, other.num_seeds) >= OWN:
        error, degrees = welch(one.sd, one.num_seeds, other.sd, other.num_seeds)
        same = one.shares_seed or other.shares_seed
        return error, degrees, f"seeds of the two, {one.num_seeds} and {other.num_seeds}", same
    theirs = [member for member in configurations if member.method in (one.method, other.method)]
    found = pooled(theirs, f"repeats of {one.method} and {other.method}")
    if found is None or found.degrees < ENOUGH:
        found = pooled(configurations, "repeats of all methods")
    if found is None:
        stated = one.sd is not None or other.sd is not None
        why = "a spread without its number of seeds" if stated else "no repeated configuration and no spread"
        return None, math.inf, why, False
    return (
        found.sd * math.sqrt(1 / one.num_seeds + 1 / other.num_seeds),
        found.degrees,
        found.source,
        found.is_lower_bound,
    )


def welch(sd_a: float, n_a: int, sd_b: float, n_b: int) -> tuple[float, float]:
    """Return the standard error of a difference of means and Welch's degrees of freedom.

    >>> welch(1.0, 4, 1.0, 4)
    (0.7071067811865476, 6.0)
    """
    a, b = sd_a**2 / n_a, sd_b**2 / n_b
    if a + b == 0:
        return 0.0, float(n_a + n_b - 2)
    return math.sqrt(a + b), (a + b) ** 2 / (a**2 / (n_a - 1) + b**2 / (n_b - 1))


def _items(one: Configuration, other: Configuration, side: Side) -> float | None:
    """Return the standard error over items of the difference of two shares, in the metric's unit."""
    if not side.is_share or one.num_items is None or other.num_items is None:
        return None
    shares = ((one.mean / side.one, one.num_items), (other.mean / side.one, other.num_items))
    return side.one * math.sqrt(math.fsum(share * (1 - share) / n for share, n in shares))
