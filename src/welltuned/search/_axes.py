"""Where the candidates of a choice lie: the axes that vary, and each candidate's place on them. Pure.

Numbers above 0 (learning rate, batch size, rank) lie by their logarithm, anything else by its order. An axis is padded
by half a step at either end, so that every value is the nearest of a part of it: on an even grid, of an equal part.
"""

import dataclasses
import functools
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from welltuned.records import Config
from welltuned.search._space import SEEDS, Choice

DERIVED = ("scaling", "start_hash", *SEEDS)  # fields that follow from others, or that name repetitions


@dataclass(frozen=True)
class Axis:
    """A setting that varies within a choice, with its values: ascending where they are numbers, else as given."""

    field: str
    values: tuple[Any, ...]
    is_number: bool

    def coordinates(self) -> tuple[float, ...]:
        """Return each value's place between 0 and 1."""
        is_log = self.is_number and min(self.values) > 0
        places = [math.log(value) for value in self.values] if is_log else [float(i) for i in range(len(self.values))]
        low = places[0] - (places[1] - places[0]) / 2
        high = places[-1] + (places[-1] - places[-2]) / 2
        return tuple((place - low) / (high - low) for place in places)


@dataclass(frozen=True)
class Box:
    """The axes of a choice, and each candidate's place among the values of each."""

    axes: tuple[Axis, ...]
    places: tuple[tuple[int, ...], ...]

    def points(self) -> tuple[tuple[float, ...], ...]:
        """Return the candidates as points of the unit cube."""
        along = [axis.coordinates() for axis in self.axes]
        return tuple(tuple(where[i] for where, i in zip(along, place, strict=True)) for place in self.places)

    def point(self, place: Sequence[int]) -> tuple[float, ...]:
        """Return a combination of values as a point, whether or not it is a candidate."""
        return tuple(axis.coordinates()[i] for axis, i in zip(self.axes, place, strict=True))


@functools.lru_cache(maxsize=256)
def box(choice: Choice) -> Box:
    """Return the axes that vary among a choice's candidates; none where there is one candidate."""
    configs = [candidate.config for candidate in choice.candidates]
    names = [field.name for field in dataclasses.fields(Config) if field.name not in DERIVED]
    axes = tuple(axis for name in names if len((axis := _axis(name, configs)).values) > 1)
    ranks = [{value: i for i, value in enumerate(axis.values)} for axis in axes]
    places = [
        tuple(rank[getattr(config, axis.field)] for axis, rank in zip(axes, ranks, strict=True)) for config in configs
    ]
    return Box(axes, tuple(places))


def nearest(points: Sequence[Sequence[float]], target: Sequence[float], taken: Collection[int]) -> int:
    """Return the place of the point nearest to the target that is not taken; the first on a tie."""
    free = (place for place in range(len(points)) if place not in taken)
    return min(free, key=lambda place: sum((a - b) ** 2 for a, b in zip(points[place], target, strict=True)))


def _axis(name: str, configs: Sequence[Config]) -> Axis:
    values: list[Any] = list(dict.fromkeys(getattr(config, name) for config in configs))
    is_number = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    return Axis(name, tuple(sorted(values) if is_number else values), is_number)
