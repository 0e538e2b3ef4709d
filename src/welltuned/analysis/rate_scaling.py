"""How the optimal learning rate moves with batch size, rank, data size or the adapter's multiplier.

Two estimators. The exponent: least squares of ln eta* on ln x with an intercept for every series (method, and all
else that is held fixed) and one common slope, its 95 % interval from the scatter about these lines. The surge fit for
sign-like optimizers (Li et al. 2024; methods.md 4): eta*(B) = 2 eta_max / (sqrt(B_n / B) + sqrt(B / B_n)), which rises
as sqrt(B), peaks at B_n and falls, by least squares of ln eta*; the interval of B_n is where the sum of squares stays
within an F quantile of its minimum. Only optima enclosed by the rates tried take part: an edge is not an optimum.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from welltuned.analysis.estimate import CONFIDENCE, Estimate, t_interval
from welltuned.analysis.grid import Mean, Place, cells, means, optimum_of
from welltuned.analysis.runs import Table

VERSUS = ("batch_size", "rank", "num_train", "scaling")
BELOW_PEAK = 4.0  # assumed
PEAK_RANGE = 256.0  # B_n is sought up to this factor beyond the sizes tried; assumed


@dataclass(frozen=True)
class RatePoint:
    """An enclosed optimum: eta* at x."""

    place: Place
    x: float
    learning_rate: float


@dataclass(frozen=True)
class Series:
    """The enclosed optima of one method with all but x fixed, ascending in x; `num_edges` were not enclosed."""

    place: Place
    points: tuple[RatePoint, ...]
    num_edges: int


@dataclass(frozen=True)
class Exponent:
    """d ln eta* / d ln x, common to all the series with two points or more."""

    versus: str
    slope: Estimate
    series: tuple[Series, ...]
    num_points: int
    span: float  # largest over smallest x within a series, the largest of them


@dataclass(frozen=True)
class Surge:
    """The fit of one series; the peak is beyond the data where `reached` is False, and then B_n is a bound at most."""

    peak_rate: float  # eta_max
    peak_batch: Estimate  # B_n
    low_open: bool  # its interval goes on beyond the range searched
    high_open: bool
    reached: bool


def series(table: Table, versus: str) -> tuple[Series, ...]:
    """Return eta* against `versus` for each method, with all else fixed."""
    if versus not in VERSUS:
        raise ValueError(f"versus: got {versus!r}, expected one of {', '.join(VERSUS)}")
    groups: defaultdict[Place, list[tuple[float, Place, float | None]]] = defaultdict(list)
    drop = ("alpha", "alpha_pattern") if versus == "scaling" else (versus,)
    for place, cell in cells(means(table)).items():
        x, found = _x(cell[0], versus), optimum_of(table, cell)
        if x is not None and found is not None:
            groups[place.without(*drop)].append((x, place, found.learning_rate))
    return tuple(_series(place, members) for place, members in groups.items())


def _x(member: Mean, versus: str) -> float | None:
    return member.runs[0].scaling if versus == "scaling" else getattr(member.place, versus)


def _series(place: Place, members: Sequence[tuple[float, Place, float | None]]) -> Series:
    points = [RatePoint(at, x, rate) for x, at, rate in sorted(members, key=lambda one: one[0]) if rate is not None]
    return Series(place, tuple(points), len(members) - len(points))


def rising(members: Sequence[Series]) -> tuple[Series, ...]:
    """Return the part of each series that rises: all of it where eta* is largest at the largest x.

    Else the points at up to a quarter of where it is largest: nearer to a peak the surge curve has bent already (its
    local slope there is 0.5 (B_n - B) / (B_n + B), so 0.3 at a quarter). A rise that has ended without a peak is not
    seen by this and makes the slope too small.
    """
    found: list[Series] = []
    for member in members:
        points = member.points
        peak = max(points, key=lambda point: point.learning_rate, default=None)
        if peak is not None and peak.x < points[-1].x:
            points = tuple(point for point in points if point.x <= peak.x / BELOW_PEAK)
        found.append(Series(member.place, points, member.num_edges))
    return tuple(found)


def exponent(members: Sequence[Series], versus: str) -> Exponent | None:
    """Fit the common exponent; None where no series has two different x."""
    kept = [member for member in members if len({point.x for point in member.points}) > 1]
    if not kept:
        return None
    x, y = _centred(kept, lambda point: point.x), _centred(kept, lambda point: point.learning_rate)
    slope = float(x @ y / (x @ x))
    dof = len(x) - len(kept) - 1
    error = float(np.sqrt(((y - slope * x) ** 2).sum() / dof / (x @ x))) if dof > 0 else None
    basis = (
        f"scatter about {len(kept)} line{'s' if len(kept) > 1 else ''} of {len(x)} optima, {dof} degrees of freedom"
        if dof > 0
        else "no interval: two optima, and a line goes through both"
    )
    return Exponent(
        versus=versus,
        slope=t_interval(slope, error, dof, basis),
        series=tuple(kept),
        num_points=len(x),
        span=max(member.points[-1].x / member.points[0].x for member in kept),
    )


def _centred(members: Sequence[Series], of: Callable[[RatePoint], float]) -> np.ndarray:
    logs = [np.log([of(point) for point in member.points]) for member in members]
    return np.concatenate([values - values.mean() for values in logs])


def surge(points: Sequence[RatePoint]) -> Surge:
    """Fit the surge curve to three or more optima at different batch sizes of one series."""
    from scipy.special import stdtrit

    x, y = np.log([point.x for point in points]), np.log([point.learning_rate for point in points])
    if len(set(x)) < 3:
        raise ValueError(f"got optima at {len(set(x))} batch sizes, expected 3 or more for two parameters")
    low, high = float(x.min()) - np.log(PEAK_RANGE), float(x.max()) + np.log(PEAK_RANGE)
    grid = np.linspace(low, high, 2001)
    squares = np.array([_surge_squares(peak, x, y) for peak in grid])
    at = int(squares.argmin())
    finer = np.linspace(grid[max(at - 1, 0)], grid[min(at + 1, len(grid) - 1)], 2001)
    fine_squares = np.array([_surge_squares(peak, x, y) for peak in finer])
    peak, least = float(finer[fine_squares.argmin()]), float(fine_squares.min())
    dof = len(x) - 2
    inside = grid[squares <= max(least, 1e-20) * (1 + float(stdtrit(dof, 0.5 + CONFIDENCE / 2)) ** 2 / dof)]
    first, last = float(min(inside, default=peak)), float(max(inside, default=peak))
    basis = f"scatter about the surge curve, {dof} degree{'s' if dof > 1 else ''} of freedom"
    return Surge(
        peak_rate=float(np.exp((y + _surge_shape(peak, x)).mean())),
        peak_batch=Estimate(float(np.exp(peak)), float(np.exp(first)), float(np.exp(last)), basis),
        low_open=bool(first <= low),
        high_open=bool(last >= high),
        reached=bool(x.min() <= peak <= x.max()),
    )


def _surge_shape(peak: float, x: np.ndarray) -> np.ndarray:
    """Return ln of (sqrt(B_n / B) + sqrt(B / B_n)) / 2, both as logarithms."""
    return np.log(np.cosh((x - peak) / 2))


def _surge_squares(peak: float, x: np.ndarray, y: np.ndarray) -> float:
    levels = y + _surge_shape(peak, x)
    return float(((levels - levels.mean()) ** 2).sum())
