"""How forgiving a method is: the width of its near-optimal band of learning rates, in decades, in every cell.

The band is that of optimum.py, at two tolerances: a share of the best value, and one standard error over seeds of the
best value (which says where learning rates cannot be told apart). A band that reaches the lowest or highest rate tried
is at least as wide as stated.
"""

import math
from dataclasses import dataclass

from welltuned.analysis.grid import Place, cells, means, optimum_of, pooled_noise, uncertain
from welltuned.analysis.optimum import NEAR_OPTIMAL, Optimum
from welltuned.analysis.runs import Table


@dataclass(frozen=True)
class Width:
    """One band; `open` where the rates tried ended before it did."""

    tolerance: float  # in the metric's unit
    decades: float
    open: bool


@dataclass(frozen=True)
class Sensitivity:
    """One cell's bands."""

    place: Place
    optimum: Optimum
    at_share: Width
    at_one_error: Width | None  # None: no standard error is known
    num_rates: int


def sensitivity(table: Table, share: float = NEAR_OPTIMAL) -> tuple[Sensitivity, ...]:
    """Return the bands of every cell with a known learning rate; `share` is of the best value."""
    noise = pooled_noise(table)
    found: list[Sensitivity] = []
    for place, cell in cells(means(table)).items():
        bottom = optimum_of(table, cell)
        if bottom is None:
            continue
        best = max(cell, key=lambda member: table.sign * member.value)
        error = uncertain(best, noise).error
        wide = optimum_of(table, cell, share * abs(best.value))
        narrow = None if error is None else optimum_of(table, cell, error)
        if wide is not None:
            found.append(Sensitivity(place, bottom, _width(wide), _width(narrow) if narrow else None, len(cell)))
    return tuple(found)


def _width(found: Optimum) -> Width:
    decades = math.log10(found.band_high / found.band_low)
    return Width(found.tolerance, decades, found.band_low_open or found.band_high_open)
