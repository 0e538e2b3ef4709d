"""Configurations that published comparisons fixed for all their methods, and where a grid has them or comes nearest.

Sources: PiSSA (Meng et al. 2024) and MiLoRA (Wang et al. 2024), as in their public training scripts. They differ in
more than is named here (data, epochs, schedule, modules, dropout); only what a table can fix is used.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from welltuned.analysis.grid import Place


@dataclass(frozen=True)
class Fixed:
    """A configuration that somebody fixed; None: whatever the table has."""

    name: str
    learning_rate: float
    batch_size: int | None
    rank: int | None


PISSA = Fixed("PiSSA paper", 2e-5, 128, 128)
MILORA = Fixed("MiLoRA paper", 3e-4, 16, 64)
PEFT_BENCHMARK = Fixed("PEFT's method comparison", 1e-4, 4, 32)  # its default_training_params.json
PUBLISHED = (PISSA, MILORA)


@dataclass(frozen=True)
class Nearest:
    """The grid's configuration nearest to a fixed one; a factor of 2 means twice or half of what was asked for."""

    fixed: Fixed
    place: Place
    rate_factor: float
    batch_factor: float
    rank_factor: float

    @property
    def exact(self) -> bool:
        """Say whether the grid has the configuration itself (a learning rate within 1 %)."""
        return self.rate_factor < 1.01 and self.batch_factor == 1 and self.rank_factor == 1


def nearest(fixed: Fixed, places: Iterable[Place]) -> Nearest | None:
    """Return the place nearest in the sum of |log| factors over learning rate, batch size and rank; ties: the first.

    What the table does not say counts as equal. None where no place has a learning rate.
    """
    found = [_compared(fixed, place) for place in places if place.learning_rate is not None]
    return min(found, key=_distance, default=None)


def _compared(fixed: Fixed, place: Place) -> Nearest:
    return Nearest(
        fixed,
        place,
        _factor(fixed.learning_rate, place.learning_rate),
        _factor(fixed.batch_size, place.batch_size),
        _factor(fixed.rank, place.rank),
    )


def _factor(one: float | None, other: float | None) -> float:
    return 1.0 if not one or not other else max(one / other, other / one)


def _distance(found: Nearest) -> float:
    return math.log(found.rate_factor) + math.log(found.batch_factor) + math.log(found.rank_factor)
