"""How must the learning rate move with the batch size? The estimated optimum with its band, on logarithmic axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from welltuned.analysis.cells import Cell, group, order
from welltuned.analysis.optimum import NEAR_OPTIMAL, Optimum, of_cell
from welltuned.analysis.wording import Key, label, plural, rate_text
from welltuned.figures._picture import Picture, sentences, span_text
from welltuned.records import Declaration, Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from welltuned.figures._ink import Look

SLOPE = 0.5  # the square-root rule of adaptive optimizers (Malladi et al. 2022), drawn for comparison only


@dataclass(frozen=True)
class Track:
    """One line: the optimum of each batch size of a method, or of one of its variants."""

    name: str
    method: str
    batches: tuple[int, ...]
    optima: tuple[Optimum, ...]
    slope: float | None  # least squares of log eta* on log batch; None under two enclosed optima


@dataclass(frozen=True)
class Optima:
    """The numbers of the figure."""

    tracks: tuple[Track, ...]
    batches: tuple[int, ...]
    num_edges: int
    num_cells: int
    seeds: tuple[int, int]  # the fewest and the most of a learning rate


def compute(results: Sequence[Result], declaration: Declaration) -> Optima | str:
    """Return the optimum of every cell, or why there is none."""
    members: dict[Key, list[tuple[Cell, Optimum]]] = {}
    counts: set[int] = set()
    for cell in group(results, declaration.cell):
        found = of_cell(cell)
        if found is not None:
            members.setdefault(cell.series, []).append((cell, found))
            counts |= {len(rate.nlls) for rate in cell.scored}
    batches = tuple(sorted({cell.config.batch_size for found in members.values() for cell, _ in found}))
    if not members:
        return "No selection trial has a score yet."
    if len(batches) < 2:
        return "The study has one batch size."
    tracks = tuple(_track(key, members[key]) for key in sorted(members, key=order))
    if all(found.edge == "both" for track in tracks for found in track.optima):
        return "No cell has a learning rate that stands out between others."
    edges = [bool(found.edge) for track in tracks for found in track.optima]
    return Optima(tracks, batches, sum(edges), len(edges), (min(counts), max(counts)))


def _track(key: Key, members: Sequence[tuple[Cell, Optimum]]) -> Track:
    ordered = sorted(members, key=lambda member: member[0].config.batch_size)
    batches = tuple(cell.config.batch_size for cell, _ in ordered)
    optima = tuple(found for _, found in ordered)
    method = ordered[0][0].config.method
    return Track(label(key) if key else method, method, batches, optima, _slope(batches, optima))


def _slope(batches: Sequence[int], optima: Sequence[Optimum]) -> float | None:
    pairs = [
        (math.log(batch), math.log(found.learning_rate))
        for batch, found in zip(batches, optima, strict=True)
        if found.learning_rate is not None
    ]
    if len(pairs) < 2:
        return None
    x_mean = math.fsum(x for x, _ in pairs) / len(pairs)
    y_mean = math.fsum(y for _, y in pairs) / len(pairs)
    spread = math.fsum((x - x_mean) ** 2 for x, _ in pairs)
    return math.fsum((x - x_mean) * (y - y_mean) for x, y in pairs) / spread


def draw(numbers: Optima) -> Figure:
    """Draw the optima with their bands; a hollow marker is an optimum on the edge of the grid."""
    from welltuned.figures import _ink

    with _ink.style():
        drawing = _ink.column_figure(2.6)
        axes = drawing.add_subplot()
        look_of = _ink.looks([(track.method, track.name) for track in numbers.tracks])
        _ink.batch_axis(axes, numbers.batches)
        axes.set_yscale("log")
        for number, track in enumerate(numbers.tracks):
            _draw_track(axes, track, look_of[track.name], _ink.dodge(number, len(numbers.tracks)))
        _reference(axes, numbers)
        _ink.rate_axis(axes, "y")
        _ink.grid(axes)
        axes.set_ylabel("optimal learning rate η*")
        _ink.legend(drawing, axes, 2)
        return drawing


def _draw_track(axes: Axes, track: Track, look: Look, aside: float) -> None:
    from welltuned.figures import _ink

    enclosed = [
        (batch * aside, found.learning_rate)
        for batch, found in zip(track.batches, track.optima, strict=True)
        if found.learning_rate is not None
    ]
    name = track.name if track.slope is None else f"{track.name} (slope {track.slope:.2f})"
    axes.plot([x for x, _ in enclosed], [y for _, y in enclosed], look.dash, color=look.colour, alpha=0.55, zorder=2)
    axes.plot([], [], look.dash, color=look.colour, marker=look.marker, label=name)
    for batch, found in zip(track.batches, track.optima, strict=True):
        x, y = batch * aside, found.learning_rate or found.best_rate
        axes.plot([x, x], [found.band_low, found.band_high], color=look.colour, linewidth=3.5, alpha=0.28, zorder=2)
        fill = "none" if found.edge else "full"
        axes.plot([x], [y], look.marker, color=look.colour, fillstyle=fill, markersize=4.5, zorder=4)
        arrow = {"arrowstyle": "<-", "color": look.colour, "linewidth": 0.8, "shrinkA": 0, "shrinkB": 3}
        for end, is_open, points in (
            (found.band_low, found.band_low_open, -11),
            (found.band_high, found.band_high_open, 11),
        ):
            if is_open:  # away from the marker, so that a hollow one stays hollow
                axes.annotate("", (x, end), (0, points), textcoords="offset points", arrowprops=arrow)
        _ink.tip_point(axes, x, y, _tip(track, batch, found))


def _reference(axes: Axes, numbers: Optima) -> None:
    from welltuned.figures import _ink

    middle = [
        math.log(found.learning_rate or found.best_rate) - SLOPE * math.log(batch)
        for track in numbers.tracks
        for batch, found in zip(track.batches, track.optima, strict=True)
    ]
    level = math.fsum(middle) / len(middle)
    ends = [numbers.batches[0], numbers.batches[-1]]
    y = [math.exp(level + SLOPE * math.log(batch)) for batch in ends]
    axes.plot(ends, y, color=_ink.SOFT, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1, label="reference slope 1/2")


def _tip(track: Track, batch: int, found: Optimum) -> str:
    head = f"{track.name}, batch {batch}: "
    if found.learning_rate is None:
        return f"{head}{found.reason} ({rate_text(found.best_rate)})"
    return f"{head}η* {rate_text(found.learning_rate)}, near-optimal {_band(found)}"


def _band(found: Optimum) -> str:
    low = ("≤ " if found.band_low_open else "") + rate_text(found.band_low)
    return f"{low} to {'≥ ' if found.band_high_open else ''}{rate_text(found.band_high)}"


def caption(numbers: Optima) -> str:
    """State the estimator, the tolerance, and how many optima lie on an edge."""
    text = (
        "Point: vertex of the parabola in log η through the three learning rates around the best mean validation NLL. "
        f"Bar: learning rates within {100 * NEAR_OPTIMAL:g} % of the best loss, an arrow where it leaves the grid; no "
        f"interval over seeds. {plural(numbers.num_cells, 'cell')}, {span_text(numbers.seeds, 'selection seed')} for "
        "each learning rate."
    )
    if numbers.num_edges:
        text += f" Hollow: {plural(numbers.num_edges, 'cell')} whose best is on the grid's edge, left out of the slope."
    return text


def alt(numbers: Optima) -> str:
    """Read out every optimum with its band."""
    return sentences(
        _tip(track, batch, found)
        for track in numbers.tracks
        for batch, found in zip(track.batches, track.optima, strict=True)
    )


def rows(numbers: Optima) -> list[dict[str, Any]]:
    """Return a row for each cell."""
    return [
        {
            "series": track.name,
            "method": track.method,
            "batch_size": batch,
            "optimum_learning_rate": found.learning_rate,
            "reason": found.reason,
            "best_learning_rate": found.best_rate,
            "band_low": found.band_low,
            "band_high": found.band_high,
            "band_low_open": found.band_low_open,
            "band_high_open": found.band_high_open,
            "band_centre": found.centre,
            "right_edge": found.right_edge,
            "tolerance_nats": found.tolerance,
            "slope": track.slope,
        }
        for track in numbers.tracks
        for batch, found in zip(track.batches, track.optima, strict=True)
    ]


FIGURE = Picture("Optimal learning rate against batch size", 40, compute, draw, caption, alt, rows)
