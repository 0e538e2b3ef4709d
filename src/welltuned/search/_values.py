"""Results as numbers for the models of a guided search: scaled logarithms of losses, and their errors. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from welltuned.search._options import Field, Floats, Ints, Points, Seen

EXCESS = 0.2  # error of the models' shapes, as a part of the distance above the best of the like; assumed
LEAST_SCALE = 0.03  # of the log losses, where few or like ones are known; assumed
LEAST_NLL = 1e-9  # nats, whose logarithm stands for that of zero


@dataclass(frozen=True)
class Values:
    """N scored points with their scaled log losses, and the points whose learning rate was too high."""

    scored: Points
    high: Points
    value_N: Floats
    excess_N: Floats  # distance above the best scored point of the same choice and share
    location: float  # log nats
    scale: float  # log nats
    ceiling: float  # scaled log loss of the base model, which a run that is worse counts with

    def variance(self, noise: float) -> Floats:
        """Return [N]: the error variances, from the sd of a seed."""
        return noise**2 + (EXCESS * self.excess_N) ** 2


def of(found: Sequence[Field], known: Sequence[Seen]) -> Values:
    """Return the values of what was seen."""
    known = sorted(known, key=lambda one: one.field)  # as `_points` has them
    scored = [(one, one.nll) for one in known if one.nll is not None]
    logs = np.array([math.log(max(nll, LEAST_NLL)) for _, nll in scored])
    location = float(np.median(logs)) if len(logs) else 0.0
    scale = max(LEAST_SCALE, float(np.std(logs))) if len(logs) else 1.0
    points = _points(found, [one for one, _ in scored])
    high = _points(found, [one for one in known if one.high])
    value = (logs - location) / scale
    bases = [math.log(one.base_nll) for one in known if one.base_nll is not None and one.base_nll > 0]
    ceiling = (max(bases) - location) / scale if bases else math.inf
    return Values(points, high, value, _excess(points.choice, points.share, value), location, scale, ceiling)


def _points(found: Sequence[Field], some: Sequence[Seen]) -> Points:
    return Points.join(
        [field.points.take([one.option for one in some if one.field == place]) for place, field in enumerate(found)]
    )


def _excess(choice: Ints, share: Floats, value: Floats) -> Floats:
    like = (choice[:, None] == choice) & (share[:, None] == share)
    return value - np.where(like, value, np.inf).min(axis=1) if len(value) else value
