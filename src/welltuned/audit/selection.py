"""What picking the best of k numbers adds to it, when the number that is shown is the one that was picked by.

The best of k configurations of equal worth and noise sigma lies above their worth by at most sigma sqrt(2 ln k) on
average (maximal inequality; Boucheron, Lugosi, Massart, Concentration Inequalities, 2013, theorem 2.5).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from welltuned.analysis.grid import Mean
from welltuned.analysis.inflation import leave_one_seed_out
from welltuned.analysis.runs import Pairs
from welltuned.audit.records import Book, Side


@dataclass(frozen=True)
class Inflation:
    """How much the best of `num_tried` may owe to chance; None where the noise is not known."""

    num_tried: int
    sigma: float | None  # standard error of one configuration's number
    bound: float | None  # sigma sqrt(2 ln k), in the metric's unit


def bound(sigma: float, num_tried: int) -> float:
    """Return sigma sqrt(2 ln k): 0 for a single one.

    >>> bound(1.0, 1), round(bound(0.38, 36), 3)
    (0.0, 1.017)
    """
    return sigma * math.sqrt(2 * math.log(num_tried))


def inflation(book: Book, num_tried: int, sigma: float | None) -> Inflation:
    """Return the inflation of a number that is the best of `num_tried`; none where other numbers judge than chose."""
    if book.fresh or num_tried < 2:
        return Inflation(1 if book.fresh else num_tried, sigma, 0.0)
    return Inflation(num_tried, sigma, None if sigma is None else bound(sigma, num_tried))


@dataclass(frozen=True)
class LeftOut:
    """The inflation of choosing by all seeds but one, on the configurations of a method that share their seeds."""

    method: str
    problem: Pairs
    num_configurations: int
    num_seeds: int
    inflation: float  # in the metric's unit; positive: the chosen number is too good


def left_out(configurations: Sequence[Mean], side: Side) -> tuple[LeftOut, ...]:
    """Measure the inflation of each method that has two or more configurations with the same two or more seeds."""
    found: list[LeftOut] = []
    for method, where in dict.fromkeys((one.place.method, one.place.problem) for one in configurations):
        mine = [one for one in configurations if (one.place.method, one.place.problem) == (method, where)]
        grid = _shared_seeds(mine)
        if len(grid) > 1:
            result = leave_one_seed_out(grid, side.higher_is_better)
            found.append(LeftOut(method, where, len(grid), len(grid[0]), result.inflation))
    return tuple(found)


def _shared_seeds(mine: Sequence[Mean]) -> list[list[float]]:
    """Return values as configurations x seeds, of the seeds that are the most common set of two or more."""
    tables = [dict(one.by_seed) for one in mine if len(dict(one.by_seed)) == one.num_seeds > 1]
    sets = [frozenset(table) for table in tables]
    if not sets:
        return []
    seeds = sorted(max(dict.fromkeys(sets), key=sets.count))
    return [[table[seed] for seed in seeds] for table in tables if frozenset(table) == frozenset(seeds)]
