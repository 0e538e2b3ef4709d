"""The predictor race: which quantity at the start, or after a few steps, says where the learning rate may lie?

A predictor gives each cell (method, rank, batch size) a number that should be proportional to its learning rate: to
eta* (the vertex of the valley) or to its right edge. The one factor in between is fitted to all cells but those left
out, in log2, so that an error is in octaves:

    error_i = | log2 eta_i - log2 q_i - mean over the others of (log2 eta - log2 q) |

Left out is the cell alone, or every cell of its method: only the second asks whether a new method could be placed. The
null is q = 1, one learning rate for all. Where a predictor is a learning rate itself, its error without any fit is
given too. Ties and gaps: a predictor is judged on the cells for which all predictors of the race have a number.
"""

import math
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from welltuned.analysis.cells import Cell
from welltuned.analysis.curvature import ADAM_FACTOR, JOINT, BlockRow
from welltuned.analysis.optimum import of_cell

TARGETS = ("optimum", "right edge")
REFERENCE_BATCH = 64  # of the muA prior (methods.md, from public sweeps); cancels in the fit


@dataclass(frozen=True)
class Place:
    """A cell whose valley is known: its two targets, each None where the rates tried do not show it."""

    method: str
    rank: int
    alpha: str
    scaling: float
    batch_size: int
    optimum: float | None
    right_edge: float | None

    @property
    def label(self) -> str:
        """Name the cell."""
        return f"{self.method}, rank {self.rank}, batch {self.batch_size}"

    def target(self, name: str) -> float | None:
        """Return one of TARGETS."""
        return self.optimum if name == "optimum" else self.right_edge


@dataclass(frozen=True)
class Predictor:
    """A quantity proportional to a learning rate, of a place and its trial's rows; `absolute`: it is one itself."""

    name: str
    value: Callable[[Place, Mapping[int, BlockRow]], float | None]  # the joint rows by step
    absolute: bool = False


@dataclass(frozen=True)
class Score:
    """How well a predictor did on one target; errors in octaves, median over cells."""

    predictor: str
    target: str
    num_cells: int
    error: float  # each cell left out
    method_error: float | None  # each method left out; None where there is only one
    method_rms: float | None  # likewise, the root mean square over cells: what a prior's standard deviation is
    worst: float  # largest of the errors with the cell left out
    unfitted: float | None  # without any fit; None where the predictor is no learning rate
    correlation: float | None  # Spearman's, of predictor and target; None where either does not vary


def places(cells: Sequence[Cell]) -> tuple[Place, ...]:
    """Return the cells of a study whose trials show a valley, one for each method, rank and batch size."""
    found = []
    for cell in cells:
        optimum, config = of_cell(cell), cell.config
        if optimum is not None and (optimum.learning_rate is not None or optimum.right_edge is not None):
            about = (config.method, config.rank, config.alpha, config.scaling, config.batch_size)
            found.append(Place(*about, optimum.learning_rate, optimum.right_edge))
    return tuple(found)


def predictors(steps: Sequence[int]) -> tuple[Predictor, ...]:
    """Return the race's field, for rows measured after these numbers of steps (0: the start)."""
    field = [
        Predictor("one rate for all", lambda place, rows: 1.0),
        Predictor("(s r)^-1/2 B^1/2 (muA)", lambda place, rows: _mu(place, 0.5)),
        Predictor("(s r)^-1/2, any B", lambda place, rows: _mu(place, 0.0)),
        Predictor("1 / lambda", lambda place, rows: _power(rows, lambda row: row.hessian_max, -1.0)),
        Predictor("lambda^-1/2", lambda place, rows: _power(rows, lambda row: row.hessian_max, -0.5)),
        Predictor("1 / Gauss-Newton", lambda place, rows: _power(rows, lambda row: row.gauss_newton_max, -1.0)),
        Predictor("Gauss-Newton^-1/2", lambda place, rows: _power(rows, lambda row: row.gauss_newton_max, -0.5)),
        Predictor("|g|_1 / s'Hs at the start", lambda place, rows: _at(rows, 0, lambda row: row.sign_step), True),
        Predictor("38 rms(g_B) / lambda", _rms_ceiling, True),
    ]
    for step in sorted(step for step in steps if step > 0):
        field += [_ceiling(step), _sign_step(step)]
    return tuple(field)


def race(
    places: Sequence[Place], rows: Sequence[BlockRow], target: str, field: Sequence[Predictor]
) -> tuple[tuple[Score, ...], dict[str, str]]:
    """Return the scores, best first, and by predictor why one could not run (no number in any cell)."""
    known = [place for place in places if place.target(target) is not None]
    values = {one.name: [one.value(place, joint_rows(place, rows)) for place in known] for one in field}
    out = {name: "no cell has a number for it" for name, found in values.items() if all(v is None for v in found)}
    running = [one for one in field if one.name not in out]
    kept = [at for at in range(len(known)) if all(values[one.name][at] is not None for one in running)]
    if len(kept) < 3:
        return (), out | {one.name: f"only {len(kept)} cells have a number for every predictor" for one in running}
    cells = [known[at] for at in kept]
    y = [math.log2(place.target(target) or 1.0) for place in cells]
    scores = [_score(one, target, cells, y, [values[one.name][at] or 1.0 for at in kept]) for one in running]
    return tuple(sorted(scores, key=lambda score: score.error)), out


def joint_rows(place: Place, rows: Sequence[BlockRow]) -> dict[int, BlockRow]:
    """Return the joint rows of a place's trial by step; at the start the batch size does not matter."""
    mine = [
        row
        for row in rows
        if row.block == JOINT and (row.method, row.rank, row.alpha) == (place.method, place.rank, place.alpha)
    ]
    return {row.step: row for row in mine if row.step == 0 or row.batch_size == place.batch_size}


def _score(one: Predictor, target: str, cells: Sequence[Place], y: Sequence[float], q: Sequence[float]) -> Score:
    gaps = [have - math.log2(value) for have, value in zip(y, q, strict=True)]
    alone = [abs(gap - statistics.fmean(gaps[:at] + gaps[at + 1 :])) for at, gap in enumerate(gaps)]
    by_method: list[float] = []
    for place, gap in zip(cells, gaps, strict=True):
        others = [other for cell, other in zip(cells, gaps, strict=True) if cell.method != place.method]
        if others:
            by_method.append(abs(gap - statistics.fmean(others)))
    return Score(
        predictor=one.name,
        target=target,
        num_cells=len(cells),
        error=statistics.median(alone),
        method_error=statistics.median(by_method) if by_method else None,
        method_rms=math.sqrt(statistics.fmean(gap * gap for gap in by_method)) if by_method else None,
        worst=max(alone),
        unfitted=statistics.median(map(abs, gaps)) if one.absolute else None,
        correlation=_correlation(q, y),
    )


def _mu(place: Place, batch_exponent: float) -> float | None:
    if place.rank == 0:
        return None  # whole matrices are trained: the rule is of LoRA's rank
    return (place.scaling * place.rank) ** -0.5 * (place.batch_size / REFERENCE_BATCH) ** batch_exponent


def _at(rows: Mapping[int, BlockRow], step: int, of: Callable[[BlockRow], float | None]) -> float | None:
    return of(rows[step]) if step in rows else None


def _power(rows: Mapping[int, BlockRow], of: Callable[[BlockRow], float], exponent: float) -> float | None:
    value = _at(rows, 0, of)
    return value**exponent if value is not None and value > 0 else None


def _rms_ceiling(place: Place, rows: Mapping[int, BlockRow]) -> float | None:
    """Return 38 / lambda(P^-1 H) with one number for P, the root mean square of a batch's gradient at the start."""
    row = rows.get(0)
    rms = None if row is None else row.gradient_rms(place.batch_size)
    return ADAM_FACTOR * rms / row.hessian_max if row is not None and rms and row.hessian_max > 0 else None


def _ceiling(step: int) -> Predictor:
    name = f"38 / lambda(P^-1 H) after {step} steps"
    return Predictor(name, lambda place, rows: _at(rows, step, lambda row: row.adam_ceiling), True)


def _sign_step(step: int) -> Predictor:
    name = f"|g|_1 / s'Hs after {step} steps"
    return Predictor(name, lambda place, rows: _at(rows, step, lambda row: row.sign_step), True)


@dataclass(frozen=True)
class Exponent:
    """The least-squares slope of log eta on log lambda over methods, within batch size and rank (P23)."""

    target: str
    slope: float
    low: float  # of the slopes with one method left out
    high: float
    correlation: float | None  # Spearman's
    num_cells: int


def exponent(places: Sequence[Place], rows: Sequence[BlockRow], target: str) -> Exponent | None:
    """Return how the target falls with the joint largest eigenvalue across methods; None with under three methods.

    Only of cells that have another method of their rank and batch size beside them.
    """
    points = []
    for place in places:
        value, row = place.target(target), joint_rows(place, rows).get(0)
        if value is not None and row is not None and row.hessian_max > 0:
            points.append((place, math.log2(row.hessian_max), math.log2(value)))
    num_beside = Counter((place.rank, place.batch_size) for place, _, _ in points)
    points = [point for point in points if num_beside[point[0].rank, point[0].batch_size] > 1]
    methods = sorted({place.method for place, _, _ in points})
    if len(methods) < 3:
        return None
    slope = _slope(points)
    without = [_slope([point for point in points if point[0].method != method]) for method in methods]
    found = [one for one in without if one is not None]
    if slope is None or not found:
        return None
    x, y = [point[1] for point in points], [point[2] for point in points]
    return Exponent(target, slope, min(found), max(found), _correlation(x, y), len(points))


def _correlation(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Return Spearman's rank correlation; None where either does not vary."""
    from scipy.stats import spearmanr

    if len(set(x)) < 2 or len(set(y)) < 2:
        return None
    found: Any = spearmanr(x, y)
    return float(found.statistic)


def _slope(points: Sequence[tuple[Place, float, float]]) -> float | None:
    """Return the slope after the mean of each (rank, batch size) is taken off both."""
    groups: dict[tuple[int, int], list[tuple[float, float]]] = {}
    for place, x, y in points:
        groups.setdefault((place.rank, place.batch_size), []).append((x, y))
    top = below = 0.0
    for members in groups.values():
        x0, y0 = (statistics.fmean(values) for values in zip(*members, strict=True))
        top += sum((x - x0) * (y - y0) for x, y in members)
        below += sum((x - x0) ** 2 for x, _ in members)
    return top / below if below > 0 else None
