"""A mean with its 95 % interval over seeds: Student's t on the seeds' values, nothing assumed about items."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean over `num_seeds` values. `low`, `high`, `sd` are None, with `reason`, where there is one value."""

    mean: float
    low: float | None
    high: float | None
    sd: float | None
    num_seeds: int
    reason: str = ""


def over_seeds(values: Sequence[float], lowest: float = -math.inf, highest: float = math.inf) -> Interval:
    """Return mean +- t_{n-1}(0.975) sd / sqrt(n), cut to [lowest, highest] where the quantity cannot lie outside.

    >>> over_seeds([1.0, 2.0, 3.0]).mean
    2.0
    """
    from scipy.special import stdtrit  # here, because loading scipy takes longer than a whole `welltuned show`

    if not values:
        raise ValueError("the mean of no values: ask only where there is at least one seed")
    n = len(values)
    mean = math.fsum(values) / n
    if n == 1:
        return Interval(mean, None, None, None, 1, "one seed has no interval")
    sd = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    half = float(stdtrit(n - 1, 0.5 + CONFIDENCE / 2)) * sd / math.sqrt(n)
    return Interval(mean, max(lowest, mean - half), min(highest, mean + half), sd, n)
