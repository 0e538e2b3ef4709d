"""Many comparisons in one study: Holm for "better than the baseline", all pairs for "the best of k".

Holm (Scand. J. Statist. 6, 1979) keeps the chance of any false claim in a family below alpha whatever the dependence of
its tests; the family is all methods x tasks of a study.

For the best of k all pairs are compared, because the best was picked after looking: the p of each pair is that of its
crossed interval, adjusted by Bonferroni for k (k - 1) / 2 pairs; with k = 2 it is the interval's own. Max-T, the
distribution of the largest difference of k equal normal means (Tukey), is shorter by a few per cent and was measured to
claim a best of 5 equal methods in 6.9 % of studies with 3 seeds: each pair has a spread of its own, estimated from few
seeds, and the extremes of such ratios hardly correlate. Flipping the signs of 3 seeds has 8 outcomes and no p below
.25, and a bootstrap of 3 seeds is too narrow (docs/decisions/0012-crossed-interval.md).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from welltuned.analysis import crossed
from welltuned.analysis.crossed import CrossedInterval
from welltuned.analysis.paired import differences

ALPHA = 0.05  # conventional: the chance of any false claim in the family


@dataclass(frozen=True)
class Adjusted:
    """A p-value and its value adjusted for the family; None where the comparison has no interval."""

    p: float | None
    adjusted: float | None
    rejected: bool


@dataclass(frozen=True)
class Contrast:
    """One pair of the k: the interval of one - other, its own p and the p adjusted for all pairs."""

    one: str
    other: str
    interval: CrossedInterval
    p: float | None
    adjusted: float | None


@dataclass(frozen=True)
class BestOf:
    """The method with the best mean and its largest adjusted p; None, with `reason`, where an interval is missing."""

    best: str
    is_best: bool  # better than every other at level alpha, adjusted
    p: float | None
    contrasts: tuple[Contrast, ...]  # of the best with every other, in the order given
    reason: str = ""


def holm(p_values: Sequence[float | None], alpha: float = ALPHA) -> tuple[Adjusted, ...]:
    """Return Holm's adjusted p-values. None, a comparison without an interval, stays in the family as p = 1."""
    from statsmodels.stats.multitest import multipletests

    if not p_values:
        return ()
    filled = [1.0 if p is None else p for p in p_values]
    adjusted = np.asarray(multipletests(filled, alpha=alpha, method="holm")[1], dtype=np.float64)
    pairs = zip(p_values, adjusted.tolist(), strict=True)
    return tuple(Adjusted(p, None if p is None else each, each <= alpha) for p, each in pairs)


def best_of(values: Mapping[str, Any], higher_is_better: bool, alpha: float = ALPHA) -> BestOf:
    """Say whether the method with the best mean is better than every other one.

    `values`: for every method its values as an array seeds x items, or a list of them, one a task, all paired.
    """
    if len(values) < 2:
        raise ValueError(f"the best of {len(values)}: expected at least two methods")
    means = {name: _mean(own) for name, own in values.items()}
    best = (max if higher_is_better else min)(means, key=lambda name: means[name])
    contrasts = tuple(_contrast(best, name, values) for name in values if name != best)
    missing = next((f"{best} and {one.other}: {one.interval.reason}" for one in contrasts if one.p is None), "")
    if missing:
        return BestOf(best, False, None, contrasts, missing)
    largest = max(each.adjusted for each in contrasts if each.adjusted is not None)
    return BestOf(best, largest <= alpha, largest, contrasts)


def all_pairs(p: float, num_methods: int) -> float:
    """Return the p of one pair adjusted for all pairs of k methods.

    >>> all_pairs(0.05, 2), all_pairs(0.005, 5), all_pairs(0.5, 5)
    (0.05, 0.05, 1.0)
    """
    return min(1.0, p * math.comb(num_methods, 2))


def _contrast(one: str, other: str, values: Mapping[str, Any]) -> Contrast:
    pairs = zip(_tasks(values[one]), _tasks(values[other]), strict=True)
    interval = crossed.interval([differences(ours, theirs) for ours, theirs in pairs])
    p = interval.p_value()
    return Contrast(one, other, interval, p, None if p is None else all_pairs(p, len(values)))


def _tasks(values: Any) -> list[Any]:
    several = isinstance(values, list | tuple) and np.ndim(values[0]) == 2
    return list(values) if several else [values]


def _mean(values: Any) -> float:
    return math.fsum(float(np.mean(task)) for task in _tasks(values)) / len(_tasks(values))
