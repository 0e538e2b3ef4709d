"""Whether the effect of the batch size is the same at every rank, data size or model: curves with equal maxima.

Lee & Lee 2026 (figure 2) shift each tuned curve over batch size so that its maximum equals the others', and compare
what is left. Here two curves that differ in `across` only are compared over the batch sizes they share: with
d(B) = score(B) - max over these B, the distance is sqrt(mean (d_1 - d_2)^2), and the overlap is the share of batch
sizes at which |d_1 - d_2| is at most one standard error of the difference (that of the maxima is not counted, which
makes the overlap a strict one). With noise alone, two equal curves overlap at about two thirds of the sizes.
"""

import itertools
import math
from collections import defaultdict
from dataclasses import dataclass

from welltuned.analysis.grid import Place
from welltuned.analysis.optimum_batch import BatchCurve, curves
from welltuned.analysis.runs import Table

VARIES_WITH = {"base": ("base", "revision")}  # what no two values of a part of the problem share


@dataclass(frozen=True)
class Distance:
    """Two max-shifted curves; `one` and `other` are the values of `across`."""

    place: Place  # what they share
    one: str
    other: str
    batches: tuple[int, ...]
    differences: tuple[float, ...]  # d_1 - d_2 at each, in the metric's unit
    rms: float
    overlap: float | None  # share within one standard error; None: an error is unknown
    noise_rms: float | None  # root mean square of the standard errors: what equal curves would show


def distances(table: Table, across: str) -> tuple[Distance, ...]:
    """Compare all pairs of curves that differ in `across`: "rank", "num_train" or a part of the problem ("base")."""
    groups: defaultdict[Place, list[BatchCurve]] = defaultdict(list)
    for curve in curves(table):
        groups[curve.place.without(*VARIES_WITH.get(across, (across,)))].append(curve)
    found: list[Distance] = []
    for place, members in groups.items():
        for one, other in itertools.combinations(members, 2):
            distance = _distance(place, one, other, across, table.sign)
            if distance is not None:
                found.append(distance)
    return tuple(found)


def level(place: Place, across: str) -> str:
    """Return what a place has of `across`, in words."""
    if across in ("rank", "num_train"):
        return str(getattr(place, across))
    return dict((*place.problem, *place.setting)).get(across, "")


def _distance(place: Place, one: BatchCurve, other: BatchCurve, across: str, sign: int) -> Distance | None:
    others = dict(zip(other.batches, other.points, strict=True))
    pairs = [
        (batch, ours, others[batch]) for batch, ours in zip(one.batches, one.points, strict=True) if batch in others
    ]
    if len(pairs) < 2:
        return None
    top = max(sign * ours.value for _, ours, _ in pairs)
    their_top = max(sign * theirs.value for _, _, theirs in pairs)
    gaps = [sign * ours.value - top - (sign * theirs.value - their_top) for _, ours, theirs in pairs]
    errors = [
        math.hypot(ours.error, theirs.error) if ours.error is not None and theirs.error is not None else None
        for _, ours, theirs in pairs
    ]
    known = [error for error in errors if error is not None]
    complete = len(known) == len(pairs)
    return Distance(
        place=place,
        one=level(one.place, across),
        other=level(other.place, across),
        batches=tuple(batch for batch, _, _ in pairs),
        differences=tuple(gaps),
        rms=_rms(gaps),
        overlap=sum(abs(gap) <= error for gap, error in zip(gaps, known, strict=True)) / len(gaps)
        if complete
        else None,
        noise_rms=_rms(known) if complete else None,
    )


def _rms(values: list[float]) -> float:
    return math.sqrt(math.fsum(value**2 for value in values) / len(values))
