"""The optimal batch size of a method whose learning rate is tuned at each: a smooth fit, its argmax, the plateau.

Estimator (Lee & Lee 2026 ask the question; the fit is ours): with x = log2 B and the tuned values y(x), least squares
of y on (1, x, x^2), weighted with 1 / SE^2 where every error is of the cell's own seeds. The argmax is the vertex, cut
to the sizes tried; where the fit has no maximum inside, it is the better end and `edge` says which. Its interval is a
parametric bootstrap over seeds. Beside it, without any fit: the plateau (the sizes next to the best one whose value is
within one standard error of it) and the efficient batch (the largest size tried that is within one standard error).
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from welltuned.analysis.estimate import Estimate, percentile, redraw
from welltuned.analysis.grid import Place, Tuned, tuned
from welltuned.analysis.runs import Table

FEWEST = 3  # batch sizes that a parabola needs


@dataclass(frozen=True)
class BatchCurve:
    """The tuned cells of one method over batch size, ascending; at least one."""

    place: Place  # without batch size and learning rate
    points: tuple[Tuned, ...]

    @property
    def batches(self) -> tuple[int, ...]:
        """Return the batch sizes."""
        return tuple(point.place.batch_size or 0 for point in self.points)


@dataclass(frozen=True)
class OptimumBatch:
    """What is known of the optimal batch size; `fitted` is None, with `reason`, under three sizes."""

    curve: BatchCurve
    fitted: Estimate | None  # argmax of the fit, in sequences
    reason: str
    coefficients: tuple[float, float, float] | None  # of 1, x, x^2 with x = log2 B, in the metric's unit
    edge: str  # of the fit's argmax: "low" | "high" | "" inside
    low_open: bool  # the interval reaches the smallest size tried, so that it may go on
    high_open: bool
    best: int  # of those tried; the larger of equals
    best_edge: str  # "low" | "high" | "both": the only size | "" inside
    plateau: tuple[int, int] | None  # None: the error of the best value is unknown
    efficient: int | None

    def at(self, batch_size: float) -> float | None:
        """Return the fit's value at a batch size."""
        if self.coefficients is None:
            return None
        x = math.log2(batch_size)
        return self.coefficients[0] + self.coefficients[1] * x + self.coefficients[2] * x * x


def curves(table: Table) -> tuple[BatchCurve, ...]:
    """Return a curve for each method, rank, setting and problem; cells of unknown batch size are left out."""
    groups: defaultdict[Place, list[Tuned]] = defaultdict(list)
    for cell in tuned(table):
        if cell.place.batch_size is not None:
            groups[cell.place.without("learning_rate", "batch_size")].append(cell)
    return tuple(
        BatchCurve(place, tuple(sorted(points, key=lambda point: point.place.batch_size or 0)))
        for place, points in groups.items()
    )


def optimum_batches(table: Table, generator: np.random.Generator) -> tuple[OptimumBatch, ...]:
    """Estimate the optimal batch size of every curve of the table."""
    return tuple(of_curve(curve, table.sign, generator) for curve in curves(table))


def of_curve(curve: BatchCurve, sign: int, generator: np.random.Generator) -> OptimumBatch:
    """Estimate one curve's optimal batch size; `sign` is 1 where larger values are better, else -1."""
    points, batches = curve.points, curve.batches
    scores = [sign * point.value for point in points]
    at = max(range(len(points)), key=lambda index: (scores[index], index))
    within = _within_one_error(points, scores, at)
    ends = {(True, True): "both", (True, False): "low", (False, True): "high", (False, False): ""}
    edge, fitted, coefficients, low_open, high_open = "", None, None, False, False
    if len(points) >= FEWEST:
        x, weights = np.log2(np.array(batches, dtype=float)), _weights(points)
        fit = parabola(x, np.array(scores), weights)
        top = vertex(fit, float(x[0]), float(x[-1]))
        edge = "low" if top <= x[0] else "high" if top >= x[-1] else ""
        coefficients = (sign * float(fit[0]), sign * float(fit[1]), sign * float(fit[2]))
        fitted = _interval(points, sign, x, weights, top, generator)
        low_open = fitted.low is not None and fitted.low <= batches[0]
        high_open = fitted.high is not None and fitted.high >= batches[-1]
    return OptimumBatch(
        curve=curve,
        fitted=fitted,
        reason="" if fitted else f"a parabola needs {FEWEST} batch sizes, and there are {len(points)}",
        coefficients=coefficients,
        edge=edge,
        low_open=low_open,
        high_open=high_open,
        best=batches[at],
        best_edge=ends[at == 0, at == len(points) - 1],
        plateau=_plateau(batches, within, at) if within else None,
        efficient=max(batch for batch, near in zip(batches, within, strict=True) if near) if within else None,
    )


def parabola(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the weighted least-squares coefficients (c0, c1, c2) of y = c0 + c1 x + c2 x^2."""
    root = np.sqrt(weights)
    design = np.stack([np.ones_like(x), x, x * x], axis=1)
    return np.linalg.lstsq(design * root[:, None], y * root, rcond=None)[0]


def vertex(fit: np.ndarray, low: float, high: float) -> float:
    """Return where the parabola is largest within [low, high]."""
    if fit[2] < 0:
        return float(min(max(-fit[1] / (2 * fit[2]), low), high))
    ends = [fit[0] + fit[1] * x + fit[2] * x * x for x in (low, high)]
    return low if ends[0] > ends[1] else high


def _weights(points: Sequence[Tuned]) -> np.ndarray:
    """Return 1 / SE^2 where each error has four or more degrees of freedom; with fewer they are too rough to weigh."""
    if all(point.error and point.dof is not None and point.dof >= 4 for point in points):
        return np.array([1 / (point.error or 1.0) ** 2 for point in points])
    return np.ones(len(points))


def _interval(
    points: Sequence[Tuned], sign: int, x: np.ndarray, weights: np.ndarray, top: float, generator: np.random.Generator
) -> Estimate:
    draws = redraw([point.uncertain for point in points], generator)
    if draws is None:
        return Estimate(2**top, None, None, "no interval: no configuration was run under two seeds")
    tops = [2 ** vertex(parabola(x, sign * draw, weights), float(x[0]), float(x[-1])) for draw in draws]
    own = all(point.own_error for point in points)
    basis = f"parametric bootstrap, {len(draws):,} draws, {'each cell' if own else 'pooled'} seeds"
    return percentile(2**top, tops, basis)


def _within_one_error(points: Sequence[Tuned], scores: Sequence[float], at: int) -> list[bool]:
    error = points[at].error
    return [] if error is None else [score >= scores[at] - error for score in scores]


def _plateau(batches: Sequence[int], within: Sequence[bool], at: int) -> tuple[int, int]:
    low = high = at
    while low > 0 and within[low - 1]:
        low -= 1
    while high + 1 < len(batches) and within[high + 1]:
        high += 1
    return batches[low], batches[high]
