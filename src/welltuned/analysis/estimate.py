"""A number with its 95 % interval and with what the interval rests on: how few seeds there were is part of the answer.

Means over seeds are known up to Student's t with their own degrees of freedom. A quantity computed from many means has
no such formula: `redraw` then draws every mean from its t distribution (a parametric bootstrap over seeds). Resampling
three seeds with replacement would give a spread sqrt(2/3) as large as it is, and Gaussian tails on top; the t draws
have neither fault (tests/test_grid.py compares the coverage of the two).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95
NUM_DRAWS = 2000  # assumed: the ends of a 95 % interval then move by about 5 % of its width from seed to seed


@dataclass(frozen=True)
class Estimate:
    """A number; `low` and `high` are None where nothing says how sure it is, and `basis` then says why."""

    value: float
    low: float | None
    high: float | None
    basis: str  # what the interval rests on

    @property
    def sign(self) -> int:
        """Return 1 or -1 where the interval lies on one side of 0, and 0 where it does not or there is none."""
        if self.low is None or self.high is None:
            return 0
        return 1 if self.low > 0 else -1 if self.high < 0 else 0

    def negated(self) -> "Estimate":
        """Return the estimate of the negative."""
        if self.low is None or self.high is None:
            return Estimate(-self.value, None, None, self.basis)
        return Estimate(-self.value, -self.high, -self.low, self.basis)


@dataclass(frozen=True)
class Uncertain:
    """A mean with its standard error, which is known with `dof` degrees of freedom; None: unknown."""

    mean: float
    error: float | None
    dof: float | None


def t_interval(value: float, error: float | None, dof: float | None, basis: str, level: float = CONFIDENCE) -> Estimate:
    """Return value +- t_dof((1 + level) / 2) error; without an error there is no interval and `basis` must say why."""
    from scipy.special import stdtrit  # here, because loading scipy takes longer than a whole `welltuned show`

    if error is None or dof is None or dof <= 0:
        return Estimate(value, None, None, basis)
    half = float(stdtrit(dof, 0.5 + level / 2)) * error
    return Estimate(value, value - half, value + half, basis)


def welch(one: Uncertain, other: Uncertain, level: float = CONFIDENCE) -> Estimate:
    """Return one - other with Welch's interval: the degrees of freedom after Satterthwaite 1946."""
    difference = one.mean - other.mean
    if one.error is None or other.error is None or one.dof is None or other.dof is None:
        return Estimate(difference, None, None, "no interval: a mean over one seed, and no configuration was repeated")
    squares = one.error**2 + other.error**2
    if squares == 0:
        return Estimate(difference, difference, difference, "no variation between seeds")
    dof = squares**2 / (one.error**4 / one.dof + other.error**4 / other.dof)
    return t_interval(difference, math.sqrt(squares), dof, f"Welch's t, {dof:.3g} degrees of freedom", level)


def redraw(means: Sequence[Uncertain], generator: np.random.Generator, num_draws: int = NUM_DRAWS) -> np.ndarray | None:
    """Draw every mean as mean + error * t_dof: an array [num_draws, len(means)]; None where an error is unknown."""
    errors = [one.error for one in means]
    dofs = [one.dof for one in means]
    if not means or any(error is None for error in errors) or any(dof is None for dof in dofs):
        return None
    centre = np.array([one.mean for one in means])
    draws = generator.standard_t(np.array(dofs, dtype=float), size=(num_draws, len(means)))
    return centre + np.array(errors, dtype=float) * draws


def percentile(value: float, draws: Sequence[float] | np.ndarray, basis: str, level: float = CONFIDENCE) -> Estimate:
    """Return the value with the percentile interval of its redrawn twins."""
    low, high = np.quantile(np.asarray(draws, dtype=float), [0.5 - level / 2, 0.5 + level / 2])
    return Estimate(value, float(low), float(high), basis)


def redrawn(
    means: Sequence[Uncertain],
    statistic: Callable[[np.ndarray], float],
    generator: np.random.Generator,
    num_draws: int = NUM_DRAWS,
    level: float = CONFIDENCE,
) -> Estimate:
    """Return a statistic of several means with its parametric-bootstrap interval over seeds."""
    value = statistic(np.array([one.mean for one in means]))
    draws = redraw(means, generator, num_draws)
    if draws is None:
        return Estimate(value, None, None, "no interval: a mean over one seed, and no configuration was repeated")
    found = [statistic(draw) for draw in draws]
    return percentile(value, found, f"parametric bootstrap over seeds, {num_draws:,} draws", level)
