"""Many comparisons in one study: Holm for "better than the baseline", max-T for "the best of k".

Holm (Scand. J. Statist. 6, 1979) keeps the chance of any false claim in a family below alpha whatever the dependence of
its tests; the family is all methods x tasks of a study.

Max-T for the best of k compares all pairs, because the best was picked after looking. The p of a pair is that of its
crossed interval, read as a normal deviate z, and is adjusted by the distribution of the largest |z| of all pairs of k
equal methods, p_adjusted = P(range of k standard normals > sqrt(2) z) (Tukey 1953; Hothorn, Bretz and Westfall, Biom.
J. 50, 2008, for the single-step max-T). With k = 2 it is the interval's own p. Resampling was tried instead: flipping
the signs of 3 seeds has 8 outcomes and no p below .25, and a bootstrap of 3 seeds is too narrow
(docs/decisions/0012-crossed-interval.md).
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
    """The method with the best mean, and the adjusted p of its nearest rival; None has its `reason`."""

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


def max_t(p: float, num_methods: int) -> float:
    """Return the chance that k equal methods have a pair with so small a p.

    >>> round(max_t(0.05, 2), 9), round(max_t(0.05, 5), 3)
    (0.05, 0.286)
    """
    from scipy.special import ndtri
    from scipy.stats import studentized_range

    z = -float(ndtri(p / 2))
    return float(studentized_range.sf(math.sqrt(2) * z, num_methods, math.inf)) if z > 0 else 1.0


def _contrast(one: str, other: str, values: Mapping[str, Any]) -> Contrast:
    pairs = zip(_tasks(values[one]), _tasks(values[other]), strict=True)
    interval = crossed.interval([differences(ours, theirs) for ours, theirs in pairs])
    p = interval.p_value()
    return Contrast(one, other, interval, p, None if p is None else max_t(p, len(values)))


def _tasks(values: Any) -> list[Any]:
    several = isinstance(values, list | tuple) and np.ndim(values[0]) == 2
    return list(values) if several else [values]


def _mean(values: Any) -> float:
    return math.fsum(float(np.mean(task)) for task in _tasks(values)) / len(_tasks(values))
