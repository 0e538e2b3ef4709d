"""How much better the best of many looks than it is: selection inflation, measured on a study's own grid.

Leave one seed out: choose the configuration by its mean over the other seeds, compare that mean (apparent) with the
configuration's value on the seed that was left out (honest), and average over the seeds left out. The honest value is
unbiased for "a configuration chosen so", because the seed that judges took no part in choosing (Cawley and Talbot, JMLR
11, 2010, on selecting and judging by the same numbers). Choosing by one seed, as most published sweeps do, is the same
with one chooser. The oracle gap is the other bias: what choosing by the test data would have gained over choosing by
validation.
"""

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class Inflation:
    """Means over the splits of the seeds, in the metric's unit; `inflation` > 0 where the apparent is too good."""

    apparent: float
    honest: float
    inflation: float
    num_configurations: int
    num_choosing: int
    num_splits: int


@dataclass(frozen=True)
class OracleGap:
    """Test values of what validation chose and of what the test data would have chosen; `gap` is never negative."""

    chosen: int  # index of the configuration
    oracle: int
    chosen_test: float
    oracle_test: float
    gap: float


def leave_one_seed_out(values: ArrayLike, higher_is_better: bool) -> Inflation:
    """Return the inflation of choosing by all seeds but one. `values`: configurations x seeds, at least two of each."""
    return of_choosing(values, higher_is_better, np.shape(values)[-1] - 1)


def of_choosing(values: ArrayLike, higher_is_better: bool, num_choosing: int) -> Inflation:
    """Return the inflation of choosing by the mean of `num_choosing` seeds, judged by the rest, over all such splits.

    Diverged runs enter with the value that they count with. Ties go to the configuration that comes first.
    """
    table = np.asarray(values, dtype=np.float64)
    if table.ndim != 2 or min(table.shape) < 2 or not np.isfinite(table).all():
        raise ValueError(f"grid: got shape {table.shape}, expected finite configurations x seeds, at least 2 x 2")
    num_configurations, num_seeds = table.shape
    if not 1 <= num_choosing < num_seeds:
        raise ValueError(f"choosing seeds: got {num_choosing}, expected 1 to {num_seeds - 1}")
    sign = 1.0 if higher_is_better else -1.0
    apparent, honest = [], []
    for choosing in itertools.combinations(range(num_seeds), num_choosing):
        judging = [seed for seed in range(num_seeds) if seed not in choosing]
        means = table[:, list(choosing)].mean(1)
        best = int(np.argmax(sign * means))
        apparent.append(float(means[best]))
        honest.append(float(table[best, judging].mean()))
    shown, true = statistics.fmean(apparent), statistics.fmean(honest)
    return Inflation(shown, true, sign * (shown - true), num_configurations, num_choosing, len(apparent))


def oracle_gap(
    validation: Sequence[float], test: Sequence[float], validation_higher: bool, test_higher: bool
) -> OracleGap:
    """Return what choosing by test would have gained. One value of each metric for every configuration."""
    if len(validation) != len(test) or not validation:
        raise ValueError(
            f"got {len(validation)} validation and {len(test)} test values, expected one for each, at least 1"
        )
    chosen = int(np.argmax(validation) if validation_higher else np.argmin(validation))
    oracle = int(np.argmax(test) if test_higher else np.argmin(test))
    return OracleGap(chosen, oracle, test[chosen], test[oracle], abs(test[oracle] - test[chosen]))
