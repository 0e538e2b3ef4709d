"""The surge: under sign-like optimizers the best learning rate rises with the batch size, peaks, and falls.

    eta*(B) = 2 eta_max / (sqrt(B_n / B) + sqrt(B / B_n))

Li et al. 2024, arXiv 2405.14578, has the peak at the gradient noise scale B_n; this closed form is derived from their
second-order argument: B^1/2 well below B_n, eta_max there, B^-1/2 just above. Two parameters, so three batch sizes at
least. `analysis/rate_scaling.py` fits the same curve with intervals; this is the least-squares point alone, for a
search that asks often.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from welltuned.errors import InputError, problem

BEYOND = 4.0  # times B_n: further up eta* levels off, which the curve does not know; the factor is assumed
REACH = 256.0  # B_n is sought up to this factor beyond the sizes given; assumed
NUM_STEPS = 400  # of the search over log B_n, then again within one step


@dataclass(frozen=True)
class Surge:
    """A fitted surge: the largest best rate, and the batch size where it is."""

    peak_rate: float  # eta_max
    peak_batch: float  # B_n
    reached: bool  # the peak lies within the batch sizes given; else B_n is a bound at most

    def rate(self, batch_size: float) -> float:
        """Return the best rate at a batch size, up to 4 B_n; InputError beyond.

        >>> Surge(0.01, 64.0, True).rate(64), round(Surge(0.01, 64.0, True).rate(16), 4)
        (0.01, 0.008)
        """
        if batch_size > BEYOND * self.peak_batch:
            expected = f"at most {BEYOND:g} times the peak of {self.peak_batch:.3g}"
            raise InputError(problem("surge: batch size", batch_size, expected, "measure a best rate there as well"))
        return self.peak_rate * 2.0 ** -_fall(math.log(self.peak_batch), batch_size)


def fit(batch_sizes: Sequence[float], rates: Sequence[float]) -> Surge:
    """Fit the two parameters to best rates at three batch sizes or more, by least squares of log rate."""
    if len(set(batch_sizes)) < 3 or len(batch_sizes) != len(rates):
        got = f"{len(set(batch_sizes))} batch sizes and {len(rates)} rates"
        raise InputError(problem("surge", got, "3 batch sizes or more, a rate for each", "add a batch size"))
    low, high = math.log(min(batch_sizes) / REACH), math.log(max(batch_sizes) * REACH)
    best = low
    for _ in range(3):
        step = (high - low) / NUM_STEPS
        grid = [low + step * at for at in range(NUM_STEPS + 1)]
        best = min(grid, key=lambda peak: _squares(peak, batch_sizes, rates)[0])
        low, high = best - step, best + step
    peak_batch = math.exp(best)
    level = _squares(best, batch_sizes, rates)[1]
    return Surge(2.0**level, peak_batch, min(batch_sizes) <= peak_batch <= max(batch_sizes))


def _fall(log_peak: float, batch_size: float) -> float:
    """Return log2 of eta_max / eta*(B)."""
    return math.log2(math.cosh((math.log(batch_size) - log_peak) / 2))


def _squares(log_peak: float, batch_sizes: Sequence[float], rates: Sequence[float]) -> tuple[float, float]:
    """Return the sum of squares about the curve with this peak, and log2 of its best eta_max."""
    levels = [math.log2(rate) + _fall(log_peak, size) for size, rate in zip(batch_sizes, rates, strict=True)]
    mean = math.fsum(levels) / len(levels)
    return math.fsum((level - mean) ** 2 for level in levels), mean
