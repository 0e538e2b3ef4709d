"""At which batch sizes two tuned methods change places (Lee & Lee 2026, figure 1: PiSSA and MiLoRA).

The difference of the tuned values is taken at every batch size that both have; a crossover lies between two
neighbouring sizes with opposite signs, at the zero of the line through them in log2 B. It is `certain` only if the 95 %
interval over seeds excludes 0 on both sides; else noise alone may have made it.
"""

import itertools
import math
from dataclasses import dataclass

from welltuned.analysis.estimate import Estimate
from welltuned.analysis.grid import Place, advantage
from welltuned.analysis.optimum_batch import BatchCurve, curves
from welltuned.analysis.runs import Table


@dataclass(frozen=True)
class Crossing:
    """A change of sign between two neighbouring batch sizes."""

    low_batch: int
    high_batch: int
    batch: float  # interpolated
    ahead_below: str
    ahead_above: str
    certain: bool


@dataclass(frozen=True)
class Crossover:
    """One pair of curves."""

    place: Place  # rank, problem, training rows and settings
    one: str
    other: str
    advantages: tuple[tuple[int, Estimate], ...]  # (batch size, of `one` over `other`), ascending
    crossings: tuple[Crossing, ...]


def crossovers(table: Table, one: str, other: str) -> tuple[Crossover, ...]:
    """Return the crossovers of two methods for each rank, problem and setting that has curves of both."""
    found: dict[Place, dict[str, BatchCurve]] = {}
    for curve in curves(table):
        found.setdefault(curve.place.without("method"), {})[curve.place.method] = curve
    return tuple(
        _of_pair(place, pair[one], pair[other], table) for place, pair in found.items() if one in pair and other in pair
    )


def _of_pair(place: Place, one: BatchCurve, other: BatchCurve, table: Table) -> Crossover:
    theirs = dict(zip(other.batches, other.points, strict=True))
    gaps = [
        (batch, advantage(point, theirs[batch], table, {}))
        for batch, point in zip(one.batches, one.points, strict=True)
        if batch in theirs
    ]
    names = (one.place.method, other.place.method)
    return Crossover(place, *names, tuple(gaps), _crossings(gaps, *names))


def _crossings(gaps: list[tuple[int, Estimate]], one: str, other: str) -> tuple[Crossing, ...]:
    """Walk over the batch sizes; one at which the methods are equal is passed over, so that it counts once."""
    found: list[Crossing] = []
    signed = [(batch, gap) for batch, gap in gaps if gap.value != 0]
    for (low, before), (high, after) in itertools.pairwise(signed):
        if before.value * after.value > 0:
            continue
        share = before.value / (before.value - after.value)
        batch = 2 ** (math.log2(low) + share * (math.log2(high) - math.log2(low)))
        below, above = (one, other) if before.value > 0 else (other, one)
        found.append(Crossing(low, high, batch, below, above, before.sign * after.sign == -1))
    return tuple(found)
