"""Where the optimal learning rate lies: a parabola and a near-optimal band instead of the bare argmax of a coarse grid.

With x = ln eta, the estimate is the vertex of the parabola through the three points around the best one. The band is
where the loss stays within a tolerance of the vertex, along that parabola between its three points and linearly in x
beyond them; its geometric centre and the right edge (where half of what training gained over the base model is lost
again) are steadier than any argmax.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from welltuned.analysis.cells import Cell

NEAR_OPTIMAL = 0.01  # of the best loss; the protocol's equivalence margin on losses (1 % relative)
RIGHT_EDGE = 0.5  # of the gain over the base model; assumed


@dataclass(frozen=True)
class Optimum:
    """What is known of a valley's bottom; `learning_rate` is None, with `reason`, where the valley is not enclosed."""

    learning_rate: float | None  # vertex of the log-parabola
    reason: str
    best_rate: float  # of those tried; the middle one of equals
    best_value: float
    edge: str  # "low" | "high": the best is the lowest | highest tried; "both": there is only one; "" inside
    band_low: float
    band_high: float
    band_low_open: bool  # the band reaches the lowest rate tried, so that it may go on
    band_high_open: bool
    tolerance: float  # in the unit of the metric
    right_edge: float | None  # None: not reached by the rates tried, or the base's loss is unknown
    num_diverged: int = 0  # of the runs behind the points, in which each counts with its declared value

    @property
    def centre(self) -> float:
        """Return the geometric centre of the near-optimal band."""
        return math.sqrt(self.band_low * self.band_high)


def of_cell(cell: Cell) -> Optimum | None:
    """Estimate a cell's optimum from its selection trials; None where no trial has a score."""
    points = [(rate.learning_rate, rate.mean_nll) for rate in cell.rates if rate.mean_nll is not None]
    if not points:
        return None
    num_diverged = sum(rate.num_diverged for rate in cell.rates)
    return estimate([rate for rate, _ in points], [nll for _, nll in points], cell.base_nll, num_diverged=num_diverged)


def estimate(
    rates: Sequence[float],
    losses: Sequence[float],
    base_loss: float | None = None,
    tolerance: float | None = None,
    num_diverged: int = 0,
) -> Optimum:
    """Estimate the optimum of a metric whose smaller values are better (negate one whose larger ones are).

    The band is what lies within `tolerance` of the bottom, in the metric's unit; 1 % of the best value if None.

    >>> round(estimate([1e-3, 1e-2, 1e-1], [2.0, 1.0, 2.0]).learning_rate, 6)
    0.01
    """
    if not rates or len(rates) != len(losses) or any(low >= high for low, high in itertools.pairwise(rates)):
        raise ValueError(f"got rates {list(rates)} and {len(losses)} losses, expected as many, ascending, at least one")
    x = [math.log(rate) for rate in rates]
    best = min(losses)
    first, last = _equals(losses, best)
    tolerance = NEAR_OPTIMAL * abs(best) if tolerance is None else tolerance
    enclosed = first > 0 and last < len(x) - 1
    bottom = _bottom(x, losses, first, last) if enclosed else None
    low, low_open = _band_end(x, losses, first, -1, best, tolerance, bottom)
    high, high_open = _band_end(x, losses, last, +1, best, tolerance, bottom)
    edge = {(True, True): "both", (True, False): "low", (False, True): "high", (False, False): ""}[
        (first == 0, last == len(x) - 1)
    ]
    return Optimum(
        learning_rate=math.exp(bottom.x) if bottom else None,
        reason=_edge_reason(edge),
        best_rate=rates[(first + last) // 2],
        best_value=best,
        edge=edge,
        band_low=math.exp(low),
        band_high=math.exp(high),
        band_low_open=low_open,
        band_high_open=high_open,
        tolerance=tolerance,
        right_edge=_right_edge(x, losses, last, best, base_loss),
        num_diverged=num_diverged,
    )


def _equals(losses: Sequence[float], best: float) -> tuple[int, int]:
    """Return the first and last index of the run of exact ties that starts at the first best."""
    first = last = list(losses).index(best)
    while last + 1 < len(losses) and losses[last + 1] == best:
        last += 1
    return first, last


@dataclass(frozen=True)
class _Bottom:
    """The parabola at its vertex; `curvature` is 0 on a plateau of three or more equals, whose middle it then is."""

    index: int  # of the middle one of its three points
    x: float
    nats: float
    curvature: float


def _bottom(x: Sequence[float], losses: Sequence[float], first: int, last: int) -> _Bottom:
    if last - first >= 2:
        return _Bottom((first + last) // 2, (x[first] + x[last]) / 2, losses[first], 0.0)
    x0, x1, x2 = x[first - 1 : first + 2]
    y0, y1, y2 = losses[first - 1 : first + 2]
    left, right = (y1 - y0) / (x1 - x0), (y2 - y1) / (x2 - x1)  # left < 0 <= right: the middle is the lowest
    curvature = (right - left) / (x2 - x0)
    vertex = (x0 + x1) / 2 - left / (2 * curvature)
    return _Bottom(first, vertex, y0 - curvature * (x0 - vertex) ** 2, curvature)


def _band_end(
    x: Sequence[float],
    losses: Sequence[float],
    start: int,
    step: int,
    best: float,
    tolerance: float,
    at: _Bottom | None,
) -> tuple[float, bool]:
    """Return (where the band ends on one side, whether the rates tried ended first)."""
    if at is None or at.curvature == 0:
        return _cross(x, losses, start, step, best + tolerance)
    level = at.nats + tolerance
    end = at.x + step * math.sqrt(tolerance / at.curvature)
    if (x[at.index + step] - end) * step >= 0:
        return end, False
    return _cross(x, losses, at.index + step, step, level)


def _cross(x: Sequence[float], losses: Sequence[float], start: int, step: int, level: float) -> tuple[float, bool]:
    """Walk from the best until the interpolated loss exceeds `level`: (where, whether the rates tried ended first)."""
    here = start
    while 0 <= here + step < len(x):
        there = here + step
        if losses[there] > level:
            share = (level - losses[here]) / (losses[there] - losses[here])
            return x[here] + share * (x[there] - x[here]), False
        here = there
    return x[here], True


def _right_edge(
    x: Sequence[float], losses: Sequence[float], last: int, best: float, base: float | None
) -> float | None:
    if base is None or base <= best:
        return None
    where, not_reached = _cross(x, losses, last, +1, best + RIGHT_EDGE * (base - best))
    return None if not_reached else math.exp(where)


def _edge_reason(edge: str) -> str:
    return {
        "": "",
        "low": "the best learning rate is the lowest tried",
        "high": "the best learning rate is the highest tried",
        "both": "the learning rates tried do not enclose a valley",
    }[edge]
