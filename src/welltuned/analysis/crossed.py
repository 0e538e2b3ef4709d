"""The interval of a difference between two methods, for other seeds and other items: crossed random effects.

Model: d[s, i] = mu + seed_s + item_i + residual_si, s = 1..S, i = 1..I, all independent with mean 0; d is ours - theirs
for the same seed and the same test item. The mean over the array has the variance

    V = var(seed) / S + var(item) / I + var(residual) / (S I).

Estimator (ANOVA of the balanced two-way layout; Searle, Casella and McCulloch, Variance Components, 1992, ch. 4),
written as variances of the mean, A = MS_seed / SI, B = MS_item / SI, E = MS_residual / SI:

    A estimates var(seed)/S + var(residual)/SI,   B estimates var(item)/I + var(residual)/SI,   E the common part,
    V = A + max(B - E, 0).

Half width: t sqrt(V), where t^2 lies between the squared quantiles of the items' and of the seeds' degrees of freedom
in the proportion share^k, share = A / V, k = 2 - 1 / df, df = S - 1. With k = 2 that would be linear in 1/df, as
Satterthwaite's (Biometrics 2, 1946) df of V is, and agree with his t to the first order, which his t owes to knowing
the share; S seeds only estimate it. k = 1 is Cochran and Cox's (Experimental Designs, 1950) weighting, which errs on
the safe side. Exact at both ends. His t itself covers 91 % at 3 seeds, k = 2 94.1 %, this 94.5 % or more.

A negative estimate of the item component is set to 0. The interval is never narrower than the one without a seed
component, t_{I-1} sqrt(E + max(B - E, 0)): two equal seeds are no proof that seeds do not matter. It *is* that one
where the median-unbiased estimate of the seed component is not positive, A <= E median(F(S-1, inf)). So where seeds
that cancel out leave A and B small or 0, the residual speaks, and only where nothing differs is there no interval.

Below 5 % both rules fail at few seeds: with k = 2, p-values of .001 would come 3.8 times too often at 3 seeds. So for
p < .05 k falls linearly with p to 1, and the median becomes the p / .1 quantile. The numbers are measured:
docs/decisions/0012-crossed-interval.md.

Several tasks: mu is the plain average of the tasks' means (tasks are fixed), items are nested in tasks, and seeds cross
all of them: A is the variance of the seeds' averages over tasks, B and E add up over tasks with weight 1/K^2.
"""

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
ROUNDING = 1e-12  # a standard error of so small a part of the largest value is rounding (float64 carries 2e-16)
TAIL_95, TAIL_90 = 0.025, 0.05  # the probability beyond each end of a 95 % and of a 90 % interval


class Scope(enum.StrEnum):
    """What an interval speaks of: what was drawn again in thought."""

    BOTH = "other seeds and other items"
    ITEMS = "other items, but these trained models only"  # one seed
    SEEDS = "other seeds"  # a metric without items


@dataclass(frozen=True)
class Parts:
    """The mean squares as variances of the mean (A, B, E of the file's docstring); numbers, or arrays of one shape."""

    seeds: Any
    items: Any
    residual: Any
    seeds_df: float
    items_df: Any


@dataclass(frozen=True)
class CrossedInterval:
    """The mean difference with 95 % and 90 % intervals, in the unit of the values.

    Where nothing can be said of the spread, the ends, `standard_error` and `degrees_of_freedom` are None and `reason`
    says why. `degrees_of_freedom` are Satterthwaite's, of the variance that the interval rests on.
    """

    mean: float
    low95: float | None
    high95: float | None
    low90: float | None
    high90: float | None
    standard_error: float | None
    degrees_of_freedom: float | None
    num_seeds: int
    num_items: int  # over all tasks; 1 for a metric without items
    num_tasks: int
    scope: Scope
    parts: Parts
    reason: str = ""

    @property
    def seed_part(self) -> float:
        """Return the variance of the mean that other seeds would bring, at least 0; it falls with the seeds."""
        return max(float(self.parts.seeds - self.parts.residual), 0.0)

    @property
    def item_part(self) -> float:
        """Return the variance of the mean that other items would bring, at least 0; it falls with the items."""
        return max(float(self.parts.items - self.parts.residual), 0.0)

    @property
    def residual_part(self) -> float:
        """Return the rest of the variance of the mean; it falls with seeds and items alike."""
        return float(self.parts.residual)

    def p_value(self, null: float = 0.0) -> float | None:
        """Return the two-sided p of "the difference is `null`": 1 - confidence of the interval that ends there."""
        if self.standard_error is None:
            return None
        return float(p_value(self.parts, abs(self.mean - null)))


def interval(values: Any, seeds_cross_tasks: bool = True) -> CrossedInterval:
    """Return the interval of the mean of paired differences: one array seeds x items, or a list of them, one a task.

    A metric without items has one column. `seeds_cross_tasks`: row s of every task is the same seed; False where every
    task was trained on seeds of its own. Diverged runs belong into the arrays (`paired.correct_rows`).

    >>> equal_seeds = interval([[1.0, 0.0, 1.0, 0.0], [1.0, 0.0, 1.0, 0.0]])
    >>> equal_seeds.low95 < 0 < equal_seeds.high95
    True
    """
    tasks = _checked(values, seeds_cross_tasks)
    parts = parts_of(tasks, seeds_cross_tasks)
    mean = math.fsum(float(task.mean()) for task in tasks) / len(tasks)
    num_seeds = min(task.shape[0] for task in tasks)
    num_items = sum(task.shape[1] for task in tasks) if tasks[0].shape[1] > 1 else 1
    scope = Scope.ITEMS if num_seeds == 1 else Scope.SEEDS if num_items == 1 else Scope.BOTH
    reason = _no_spread(parts, num_seeds, num_items, max(float(np.abs(task).max()) for task in tasks))
    if reason:
        return CrossedInterval(
            mean, None, None, None, None, None, None, num_seeds, num_items, len(tasks), scope, parts, reason
        )
    half95, half90 = float(half_width(parts, TAIL_95)), float(half_width(parts, TAIL_90))
    variance, degrees = _satterthwaite(parts)
    return CrossedInterval(
        mean=mean,
        low95=mean - half95,
        high95=mean + half95,
        low90=mean - half90,
        high90=mean + half90,
        standard_error=float(np.sqrt(variance)),
        degrees_of_freedom=degrees,
        num_seeds=num_seeds,
        num_items=num_items,
        num_tasks=len(tasks),
        scope=scope,
        parts=parts,
    )


def parts_of(tasks: Sequence[Floats], seeds_cross_tasks: bool = True) -> Parts:
    """Return the mean squares of arrays [..., seeds, items], one a task; leading axes are replications.

    One seed has no A and E (0), and B is then the variance over its items; a single item has no B and E.
    """
    weight = 1.0 / len(tasks)
    seed_means = [task.mean(-1) for task in tasks]
    seeds_df = float(min(task.shape[-2] for task in tasks) - 1)
    if seeds_df == 0:
        seeds = np.zeros(tasks[0].shape[:-2])
    elif seeds_cross_tasks:
        seeds = np.mean(seed_means, axis=0).var(-1, ddof=1) / tasks[0].shape[-2]
    else:
        terms = [weight**2 * mean.var(-1, ddof=1) / mean.shape[-1] for mean in seed_means]
        seeds, seeds_df = sum(terms), float(sum(mean.shape[-1] - 1 for mean in seed_means))
    items = [weight**2 * _item_variance(task) for task in tasks]
    residual = sum(weight**2 * _residual_variance(task) for task in tasks)
    total = sum(items)
    # Satterthwaite over the tasks; where the items' means do not differ, the residual has at least so many
    spread = sum(part**2 / max(task.shape[-1] - 1, 1) for part, task in zip(items, tasks, strict=True))
    all_items = max(sum(task.shape[-1] - 1 for task in tasks), 1)
    items_df = np.where(spread > 0, np.square(total) / np.where(spread > 0, spread, 1.0), all_items)
    return Parts(seeds, total, residual, seeds_df, items_df)


def half_width(parts: Parts, tail: Any) -> Any:
    """Return the half width, t sqrt(V) of the docstring above, with probability `tail` beyond each end."""
    from scipy.special import chdtri, stdtrit  # here, because loading scipy takes longer than a whole `welltuned show`

    items_t = -stdtrit(parts.items_df, tail)
    items_only = items_t * np.sqrt(_items_variance(parts))
    if parts.seeds_df == 0:
        return items_only
    variance, share = _variance(parts)
    seeds_t = -stdtrit(parts.seeds_df, tail)
    caution = np.minimum(np.asarray(tail) / TAIL_95, 1.0)  # 1 down to 5 %, towards 0 for smaller errors
    exponent = 1.0 + caution * (1.0 - 1.0 / parts.seeds_df)
    crossed = np.sqrt(variance * (items_t**2 + share**exponent * (seeds_t**2 - items_t**2)))
    quantile = chdtri(parts.seeds_df, 1.0 - caution / 2) / parts.seeds_df  # the median at 5 %
    no_sign_of_seeds = parts.seeds <= quantile * parts.residual
    return np.where(no_sign_of_seeds, items_only, np.maximum(crossed, items_only))


def p_value(parts: Parts, distance: Any) -> Any:
    """Return the two-sided p at a distance of the mean from the null: inverts `half_width` by bisection in log p.

    p is found between 1e-15 and 1, to a relative 1e-9.
    """
    distance = np.asarray(distance, dtype=np.float64)
    low, high = np.full(distance.shape, np.log(1e-15)), np.zeros(distance.shape)
    for _ in range(36):  # (log 1e15) / 2^36 < 1e-9
        middle = (low + high) / 2
        beyond = half_width(parts, np.exp(middle) / 2) > distance  # this interval still reaches the null
        low, high = np.where(beyond, middle, low), np.where(beyond, high, middle)
    return np.exp(high)


def _variance(parts: Parts) -> tuple[Any, Any]:
    """Return V and the seeds' share of it."""
    variance = parts.seeds + np.maximum(parts.items - parts.residual, 0.0)
    return variance, parts.seeds / np.where(variance > 0, variance, 1.0)


def _items_variance(parts: Parts) -> Any:
    """Return the variance of the mean where seeds do not matter: E + max(B - E, 0), never less than the residual's."""
    return np.maximum(parts.items, parts.residual)


def _satterthwaite(parts: Parts) -> tuple[float, float]:
    """Return the variance that the interval rests on, at least that without seeds, and its degrees of freedom."""
    variance, share = (float(value) for value in _variance(parts))
    items_only = float(_items_variance(parts))
    if parts.seeds_df == 0 or variance <= items_only:
        return items_only, float(parts.items_df)
    return variance, 1.0 / (share**2 / parts.seeds_df + (1.0 - share) ** 2 / float(parts.items_df))


def _item_variance(task: Floats) -> Any:
    """Return MS_item / (S I): the variance of the items' means, over I."""
    num_items = task.shape[-1]
    return task.mean(-2).var(-1, ddof=1) / num_items if num_items > 1 else np.zeros(task.shape[:-2])


def _residual_variance(task: Floats) -> Any:
    """Return MS_residual / (S I)."""
    num_seeds, num_items = task.shape[-2:]
    if num_seeds == 1 or num_items == 1:
        return np.zeros(task.shape[:-2])
    rows, columns = task.mean(-1), task.mean(-2)
    mean = rows.mean(-1)
    total = np.einsum("...si,...si->...", task, task) - num_seeds * num_items * mean**2
    seeds = num_items * np.square(rows - mean[..., None]).sum(-1)
    items = num_seeds * np.square(columns - mean[..., None]).sum(-1)
    squares = np.maximum(total - seeds - items, 0.0)
    return squares / ((num_seeds - 1) * (num_items - 1) * num_seeds * num_items)


def _checked(values: Any, seeds_cross_tasks: bool) -> list[Floats]:
    several = isinstance(values, list | tuple) and len(values) > 0 and np.ndim(values[0]) == 2
    tasks = [np.asarray(task, dtype=np.float64) for task in (values if several else [values])]
    for task in tasks:
        if task.ndim != 2 or 0 in task.shape:
            raise ValueError(f"paired differences: got shape {task.shape}, expected seeds x items, at least 1 x 1")
        if not np.isfinite(task).all():
            raise ValueError("paired differences: got NaN or infinity, expected numbers; a diverged run is a row of 0s")
    if len({task.shape[1] == 1 for task in tasks}) > 1:
        raise ValueError("paired differences: got tasks with items and tasks without, expected one kind")
    seeds = {task.shape[0] for task in tasks}
    if len(seeds) > 1 and (seeds_cross_tasks or 1 in seeds):
        raise ValueError(f"paired differences: got {sorted(seeds)} seeds, expected the same seeds in every task")
    return tasks


def _no_spread(parts: Parts, num_seeds: int, num_items: int, largest: float) -> str:
    if num_seeds == 1 and num_items == 1:
        return "one number has no interval"
    if max(float(parts.items), float(parts.seeds), float(parts.residual)) <= (ROUNDING * largest) ** 2:
        kind = "seeds and items" if num_seeds > 1 and num_items > 1 else "seeds" if num_seeds > 1 else "items"
        return f"all {kind} differ alike, so nothing says how others would"
    return ""
