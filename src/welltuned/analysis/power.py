"""How many seeds and items a verdict takes: before a study from assumed spreads, after one from its own.

Everything rests on `crossed.half_width`, so what is promised is what the interval will do. The mean over S seeds and I
items is normal with variance seed^2/S + item^2/I + residual^2/(SI); the mean square of the seeds is a multiple of
chi-square with S - 1 degrees of freedom, over which chances are averaged; the mean squares of items and residuals have
hundreds and are taken as known.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from welltuned.analysis import crossed
from welltuned.analysis.crossed import TAIL_90, TAIL_95, CrossedInterval, Parts, Scope
from welltuned.analysis.verdict import DISCORDANCE, Kind, Margin, decide

SEED_SD = (
    0.0038  # measured: sd over seeds of one method's accuracy in public LoRA sweeps near the optimum (.3 to .6 points)
)
ITEM_SHARE = 0.2  # measured: 0 to .2 between the winners of the recorded study at batch 4 and 16 (docs/calibration.md)
POWER = 0.8  # conventional
MOST_SEEDS = 1000  # beyond these "more" is no advice
MOST_ITEMS = 10_000_000
CHI_SQUARE_POINTS = 400  # quantiles over which chances are averaged: chances to about .001


@dataclass(frozen=True)
class Spread:
    """Standard deviations of one paired difference: of a seed's own, of an item's own, and of the rest."""

    seed: float
    item: float
    residual: float

    def parts(self, num_seeds: int, num_items: int) -> Parts:
        """Return the mean squares to expect, as variances of the mean."""
        residual = self.residual**2 / (num_seeds * num_items)
        return Parts(
            seeds=self.seed**2 / num_seeds + residual,
            items=self.item**2 / num_items + residual,
            residual=residual,
            seeds_df=num_seeds - 1,
            items_df=max(num_items - 1, 1),
        )


@dataclass(frozen=True)
class Chances:
    """The chances of each verdict, and of "different from 0"."""

    better: float
    worse: float
    equivalent: float
    undecided: float
    differs: float


@dataclass(frozen=True)
class SeedsNeeded:
    """Seeds per method; None where even MOST_SEEDS do not suffice, with the reason."""

    to_see: int | None  # a true difference of the margin, as different from 0
    to_equate: int | None  # equal methods, as equivalent
    power: float
    reason: str = ""


@dataclass(frozen=True)
class Needed:
    """What would decide an undecided difference if it stayed where it is, each on top of what there is.

    `seeds` with the same items, `items` with the same seeds, `both` by the same factor. At these numbers the chance
    is about one half, because another sample moves the difference too. None where it does not help, with the reason.
    """

    seeds: int | None
    items: int | None
    both: tuple[int, int] | None
    aim: Kind | None  # the verdict that the difference points to
    reason: str = ""


def accuracy_spread(
    seed_sd: float = SEED_SD, discordance: float = DISCORDANCE, item_share: float = ITEM_SHARE
) -> Spread:
    """Return the spread of the difference of two accuracies.

    `seed_sd` is one method's, so that of a difference is sqrt(2) times it (no correlation between the methods' seeds
    is assumed). `item_share` is the part of the items' variance that comes back with every seed; .5 is assumed, between
    0 (equal methods) and 1 (the same items differ at every seed).
    """
    item, residual = item_share * discordance, (1 - item_share) * discordance
    return Spread(math.sqrt(2) * seed_sd, math.sqrt(item), math.sqrt(residual))


def chances(spread: Spread, num_seeds: int, num_items: int, difference: float, margin: float) -> Chances:
    """Return the chances of each verdict where the true difference (larger is better) is `difference`; >= 2 seeds."""
    from scipy.special import chdtri, ndtr

    if num_seeds < 2:
        raise ValueError(f"seeds: got {num_seeds}, expected at least 2; one seed never gives a verdict")
    expected = spread.parts(num_seeds, num_items)
    quantiles = (np.arange(CHI_SQUARE_POINTS) + 0.5) / CHI_SQUARE_POINTS
    drawn = expected.seeds * chdtri(expected.seeds_df, quantiles) / expected.seeds_df
    parts = Parts(drawn, expected.items, expected.residual, expected.seeds_df, expected.items_df)
    half95, half90 = crossed.half_width(parts, TAIL_95), crossed.half_width(parts, TAIL_90)
    sd = math.sqrt(expected.seeds + expected.items - expected.residual)
    better = float(np.mean(ndtr((difference - margin - half95) / sd)))
    worse = float(np.mean(ndtr((-difference - margin - half95) / sd)))
    room = np.maximum(margin - half90, 0.0)
    equivalent = float(np.mean(ndtr((room - difference) / sd) - ndtr((-room - difference) / sd)))
    differs = float(np.mean(ndtr((difference - half95) / sd) + ndtr((-difference - half95) / sd)))
    return Chances(better, worse, equivalent, max(1.0 - better - worse - equivalent, 0.0), differs)


def seeds_needed(spread: Spread, num_items: int, margin: Margin, power: float = POWER) -> SeedsNeeded:
    """Return the seeds per method with which a study of `num_items` items keeps its promise, before it is run."""
    value = margin.value
    to_see = _smallest(lambda seeds: chances(spread, seeds, num_items, value, value).differs >= power, 2, MOST_SEEDS)
    to_equate = _smallest(
        lambda seeds: chances(spread, seeds, num_items, 0.0, value).equivalent >= power, 2, MOST_SEEDS
    )
    missing = [text for text, seeds in (("see", to_see), ("show equivalence within", to_equate)) if seeds is None]
    short = f"{num_items:,} test items are too few"
    reason = f"{short} to {' or to '.join(missing)} {margin.text}, with any number of fresh seeds"
    return SeedsNeeded(to_see, to_equate, power, reason if missing else "")


def more_needed(interval: CrossedInterval, margin: Margin) -> Needed:
    """Return how many more seeds, items or both would decide; zeros where the verdict stands already."""
    if interval.standard_error is None or interval.scope is Scope.ITEMS:
        one_seed = "one fresh seed says nothing of others; run at least 3"
        reason = "more fresh seeds or test items, among which the difference varies" if interval.reason else one_seed
        return Needed(None, None, None, None, reason)
    verdict = decide(interval, margin)
    if verdict.kind is not Kind.UNDECIDED:
        return Needed(0, 0, (0, 0), verdict.kind)
    mean = interval.mean if margin.higher_is_better else -interval.mean
    distance = abs(mean) - margin.value
    if distance == 0:
        return Needed(None, None, None, None, "the difference is exactly the margin")
    aim = Kind.EQUIVALENT if distance < 0 else Kind.BETTER if mean > 0 else Kind.WORSE
    tail = TAIL_90 if aim is Kind.EQUIVALENT else TAIL_95

    def decides(seeds: int, items: int) -> bool:
        return float(crossed.half_width(_scaled(interval, seeds, items), tail)) < abs(distance)

    now_seeds, now_items = interval.num_seeds, interval.num_items
    seeds = _smallest(lambda number: decides(number, now_items), now_seeds, MOST_SEEDS)
    both = _smallest(lambda number: decides(number, _in_step(number, interval)), now_seeds, MOST_SEEDS)
    items = None
    if interval.scope is Scope.BOTH:
        items = _smallest(lambda number: decides(now_seeds, number), now_items, MOST_ITEMS)
    reason = (
        ""
        if seeds is not None or items is not None
        else "neither more fresh seeds nor more test items alone would decide it"
    )
    return Needed(
        seeds=None if seeds is None else seeds - now_seeds,
        items=None if items is None else items - now_items,
        both=None if both is None else (both - now_seeds, _in_step(both, interval) - now_items),
        aim=aim,
        reason=reason if both is not None else "the difference is too near the margin to be decided",
    )


def _in_step(num_seeds: int, interval: CrossedInterval) -> int:
    """Return the items that grow as the seeds do; a metric without items stays without."""
    if interval.scope is not Scope.BOTH:
        return interval.num_items
    return math.ceil(interval.num_items * num_seeds / interval.num_seeds)


def _scaled(interval: CrossedInterval, num_seeds: int, num_items: int) -> Parts:
    """Return the mean squares to expect of another number of seeds and items, from the components of these."""
    by_seeds, by_items = interval.num_seeds / num_seeds, interval.num_items / num_items
    residual = interval.residual_part * by_seeds * by_items
    return Parts(
        seeds=interval.seed_part * by_seeds + residual,
        items=interval.item_part * by_items + residual,
        residual=residual,
        seeds_df=interval.parts.seeds_df + num_seeds - interval.num_seeds,
        items_df=interval.parts.items_df / by_items,
    )


def _smallest(holds: Callable[[int], bool], low: int, high: int) -> int | None:
    """Return the smallest number from `low` to `high` for which `holds`, where it holds from some number on."""
    if not holds(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return high
