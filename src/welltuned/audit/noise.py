"""How large chance is beside a difference: the noise of seeds and that of items, from whatever the table gives.

The difference of two configurations over s seeds each, on n test items that both answer, has a standard error between
    low  = max(seeds, sqrt(PAIRED_SHARE) * items / sqrt(s))    the two agree on most items
    high = sqrt(seeds^2 + items^2)                             the two answer independently
with seeds that of the differences by seed, where both have the same ones, else seeds^2 = sd_a^2/s_a + sd_b^2/s_b
(Welch's degrees of freedom, or those of repeats pooled over configurations) and items^2 = p_a(1-p_a)/n + p_b(1-p_b)/n
(binomial, with infinite degrees of freedom). The larger of low's two parts brings its own degrees of freedom, high has
Satterthwaite's of both. A table does not say how often two methods answer differently, so that both ends are needed:
what low cannot tell apart is noise, and what high tells apart is not.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from welltuned.analysis.grid import Mean
from welltuned.audit.configurations import num_items, shares_seed
from welltuned.audit.records import Side

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
    low_degrees: float  # of freedom, for Student's t: those of the seeds, infinite where the items' part is the larger
    high_degrees: float  # Satterthwaite's of both
    source: str

    @property
    def known(self) -> bool:
        """Say whether there is any noise to compare with."""
        return self.low is not None and self.low > 0


UNKNOWN = Noise(None, None, None, None, math.inf, math.inf, "one of the two has no number")


def pooled(configurations: Sequence[Mean], where: str) -> SeedNoise | None:
    """Return the standard deviation within repeated configurations, pooled over them; None without repeats.

    s^2 = sum (n_i - 1) s_i^2 / sum (n_i - 1), over configurations in which nothing diverged.
    """
    repeated = [one for one in configurations if one.sd is not None and one.num_seeds > 1 and not one.num_diverged]
    degrees = sum(one.num_seeds - 1 for one in repeated)
    if not degrees:
        return None
    squares = math.fsum((one.num_seeds - 1) * (one.sd or 0.0) ** 2 for one in repeated)
    same = any(shares_seed(one) for one in repeated)
    return SeedNoise(math.sqrt(squares / degrees), degrees, f"repeats of {where}, {degrees} degrees of freedom", same)


def of_difference(one: Mean, other: Mean, configurations: Sequence[Mean], side: Side) -> Noise:
    """Return the noise of the difference of two configurations' means, given all configurations of their problem."""
    seeds, degrees, source, bound = _seeds(one, other, configurations)
    items = _items(one, other, side)
    if seeds is None and items is None:
        return Noise(None, None, None, None, math.inf, math.inf, source)
    least = (items or 0.0) * math.sqrt(PAIRED_SHARE / min(one.num_seeds, other.num_seeds))
    return Noise(
        seeds=seeds,
        items=items,
        low=max(seeds or 0.0, least),
        low_degrees=degrees if (seeds or 0.0) >= least else math.inf,
        high_degrees=satterthwaite(seeds or 0.0, degrees, items or 0.0),
        high=None if seeds is None or bound else math.hypot(seeds, items or 0.0),
        source=source if items is None else f"{source}; binomial noise of the test items",
    )


def _seeds(one: Mean, other: Mean, configurations: Sequence[Mean]) -> tuple[float | None, float, str, bool]:
    """Return (standard error from seeds, degrees of freedom, source, whether it is only a lower bound)."""
    same = shares_seed(one) or shares_seed(other)
    gaps = _paired(one, other)
    if len(gaps) >= OWN:
        return statistics.stdev(gaps) / math.sqrt(len(gaps)), len(gaps) - 1, f"{len(gaps)} seeds that both have", same
    if one.sd is not None and other.sd is not None and min(one.num_seeds, other.num_seeds) >= OWN:
        error, degrees = welch(one.sd, one.num_seeds, other.sd, other.num_seeds)
        return error, degrees, f"{one.num_seeds} and {other.num_seeds} seeds of their own", same
    names = (one.place.method, other.place.method)
    found = pooled([member for member in configurations if member.place.method in names], " and ".join(names))
    if found is None or found.degrees < ENOUGH:
        found = pooled(configurations, "all methods")
    if found is None:
        spreads = any(run.sd is not None for member in (one, other) for run in member.runs)
        why = "a spread without its number of seeds" if spreads else "no repeated configuration and no spread"
        return None, math.inf, why, False
    scale = math.sqrt(1 / one.num_seeds + 1 / other.num_seeds)
    return found.sd * scale, found.degrees, found.source, found.is_lower_bound


def _paired(one: Mean, other: Mean) -> list[float]:
    """Return the differences by seed where both have one run of each of the same seeds."""
    ours, theirs = dict(one.by_seed), dict(other.by_seed)
    if ours.keys() != theirs.keys() or not len(ours) == len(theirs) == one.num_seeds == other.num_seeds:
        return []
    return [ours[seed] - theirs[seed] for seed in ours]


def welch(sd_a: float, n_a: int, sd_b: float, n_b: int) -> tuple[float, float]:
    """Return the standard error of a difference of means and Welch's degrees of freedom.

    >>> welch(1.0, 4, 1.0, 4)
    (0.7071067811865476, 6.0)
    """
    a, b = sd_a**2 / n_a, sd_b**2 / n_b
    if a + b == 0:
        return 0.0, float(n_a + n_b - 2)
    return math.sqrt(a + b), (a + b) ** 2 / (a**2 / (n_a - 1) + b**2 / (n_b - 1))


def satterthwaite(seeds: float, degrees: float, items: float) -> float:
    """Return the degrees of freedom of sqrt(seeds^2 + items^2), those of items being infinite.

    >>> satterthwaite(1.0, 4.0, 0.0), satterthwaite(1.0, 4.0, 1.0), satterthwaite(0.0, 4.0, 1.0)
    (4.0, 16.0, inf)
    """
    if not items:
        return degrees
    above = 1 + (items / seeds) * (items / seeds) if seeds else math.inf
    return degrees * above * above


def _items(one: Mean, other: Mean, side: Side) -> float | None:
    """Return the standard error over items of the difference of two shares, in the metric's unit."""
    ours, theirs = num_items(one), num_items(other)
    if not side.is_share or ours is None or theirs is None:
        return None
    return side.one * math.sqrt(
        math.fsum(
            share * (1 - share) / n for share, n in ((one.value / side.one, ours), (other.value / side.one, theirs))
        )
    )
