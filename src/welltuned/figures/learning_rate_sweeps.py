"""How sharp is each method's valley? Validation NLL against learning rate, a panel per batch size."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from welltuned.analysis.cells import Cell, RatePoint, group
from welltuned.analysis.optimum import of_cell
from welltuned.analysis.wording import label, nats_text, plural, rate_text
from welltuned.figures._picture import Picture, sentences, span_text
from welltuned.records import Declaration, Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from welltuned.figures._ink import Look

COLUMNS = 4


@dataclass(frozen=True)
class Sweep:
    """One line: a cell's selection trials. `rates` holds only learning rates with a score."""

    name: str
    method: str
    batch_size: int
    rates: tuple[RatePoint, ...]
    selected_rate: float | None
    optimum_rate: float | None


@dataclass(frozen=True)
class Sweeps:
    """The numbers of the figure."""

    sweeps: tuple[Sweep, ...]
    batches: tuple[int, ...]
    base_nll: float | None
    num_unscored: int


def compute(results: Sequence[Result], declaration: Declaration) -> Sweeps | str:
    """Return every cell's sweep, or why there is none."""
    cells = [cell for cell in group(results, declaration.cell) if cell.scored]
    if not cells:
        return "No selection trial has a score yet."
    if all(len(cell.rates) < 2 for cell in cells):
        return "The study has one learning rate for each cell."
    sweeps = tuple(_sweep(cell) for cell in cells)
    bases = [cell.base_nll for cell in cells if cell.base_nll is not None]
    one_base = bool(bases) and max(bases) - min(bases) < 1e-3 * max(bases)  # several problems have no common line
    return Sweeps(
        sweeps,
        tuple(sorted({sweep.batch_size for sweep in sweeps})),
        math.fsum(bases) / len(bases) if one_base else None,
        sum(rate.num_unscored for cell in cells for rate in cell.rates),
    )


def _sweep(cell: Cell) -> Sweep:
    found = of_cell(cell)
    return Sweep(
        label(cell.series) if cell.series else cell.config.method,
        cell.config.method,
        cell.config.batch_size,
        cell.scored,
        cell.selected_rate,
        found.learning_rate if found else None,
    )


def draw(numbers: Sweeps) -> Figure:
    """Draw a panel for each batch size, all to one scale."""
    from welltuned.figures import _ink

    with _ink.style():
        columns = min(COLUMNS, len(numbers.batches))
        lines = math.ceil(len(numbers.batches) / columns)
        drawing = _ink.page_figure(0.45 + 1.6 * lines)
        panels = drawing.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).ravel().tolist()
        look_of = _ink.looks([(sweep.method, sweep.name) for sweep in numbers.sweeps])
        for axes, batch in zip(panels, numbers.batches, strict=False):
            _ink.grid(axes)
            axes.set_title(f"batch {batch}")
            if numbers.base_nll is not None:
                base = axes.axhline(numbers.base_nll, color=_ink.SOFT, linewidth=0.8, linestyle=(0, (1, 2)), zorder=1)
                _ink.tip(base, f"the base model before training: {nats_text(numbers.base_nll)}")
            for sweep in numbers.sweeps:
                if sweep.batch_size == batch:
                    _draw_sweep(axes, sweep, look_of[sweep.name])
        _finish(drawing, panels, numbers, columns)
        return drawing


def _draw_sweep(axes: Axes, sweep: Sweep, look: Look) -> None:
    from welltuned.figures import _ink

    points = [(rate.learning_rate, rate.mean_nll or 0.0, rate) for rate in sweep.rates]
    axes.plot(*_columns(points), look.dash, color=look.colour, zorder=3, linewidth=1)
    style: dict[str, Any] = {"color": look.colour, "linestyle": "none", "markeredgewidth": 0.9, "zorder": 4}
    axes.plot(*_columns(p for p in points if not p[2].num_diverged), marker=look.marker, markersize=3.2, **style)
    axes.plot(*_columns(p for p in points if p[2].num_diverged), marker="x", markersize=4, **style)
    bars = [(x, y - rate.sd_nll, y + rate.sd_nll) for x, y, rate in points if rate.sd_nll is not None]
    at, low, high = ([bar[part] for bar in bars] for part in range(3))
    axes.vlines(at, low, high, color=look.colour, linewidth=0.8, zorder=3)
    chosen = _columns(p for p in points if p[0] == sweep.selected_rate)
    axes.plot(*chosen, "o", color=look.colour, markersize=7, markeredgewidth=0.8, fillstyle="none", zorder=5)
    for here, there, rate in points:
        _ink.tip_point(axes, here, there, _tip(sweep, rate))


def _columns(points: Iterable[tuple[float, float, RatePoint]]) -> tuple[list[float], list[float]]:
    given = list(points)
    return [x for x, _, _ in given], [y for _, y, _ in given]


def _finish(drawing: Figure, panels: list[Any], numbers: Sweeps, columns: int) -> None:
    from matplotlib.lines import Line2D

    from welltuned.figures import _ink

    used = panels[: len(numbers.batches)]
    losses = [rate.mean_nll for sweep in numbers.sweeps for rate in sweep.rates if rate.mean_nll is not None]
    _ink.loss_axis(used[0], losses)  # the panels share it
    for spare in panels[len(numbers.batches) :]:
        spare.remove()
    for number, axes in enumerate(used):
        _ink.rate_axis(axes, "x")
        if number >= len(used) - columns:
            axes.set_xlabel("learning rate")
            axes.tick_params(axis="x", labelbottom=True)
        if number % columns == 0:
            axes.set_ylabel(used[0].get_ylabel())
    names = {sweep.name: sweep.method for sweep in numbers.sweeps}
    look_of = _ink.looks([(sweep.method, sweep.name) for sweep in numbers.sweeps])
    handles = [
        Line2D(
            [], [], color=look_of[name].colour, marker=look_of[name].marker, linestyle=look_of[name].dash, label=name
        )
        for name in names
    ]
    soft: dict[str, Any] = {"color": _ink.SOFT, "linestyle": "none"}
    handles.append(Line2D([], [], marker="o", markersize=7, fillstyle="none", label="selected", **soft))
    if any(rate.num_diverged for sweep in numbers.sweeps for rate in sweep.rates):
        handles.append(Line2D([], [], marker="x", label="diverged", **soft))
    if numbers.base_nll is not None:
        handles.append(Line2D([], [], color=_ink.SOFT, linewidth=0.8, linestyle=(0, (1, 2)), label="base model"))
    _ink.legend_of(drawing, handles, [str(handle.get_label()) for handle in handles], 8)


def _tip(sweep: Sweep, rate: RatePoint) -> str:
    text = f"{sweep.name}, batch {sweep.batch_size}, learning rate {rate_text(rate.learning_rate)}"
    text += f": {nats_text(rate.mean_nll)}, {plural(len(rate.nlls), 'seed')}"
    return text + (f", {rate.num_diverged} diverged" if rate.num_diverged else "")


def caption(numbers: Sweeps) -> str:
    """State n, what a diverged trial counts as, and what was left out."""
    rates = [rate for sweep in numbers.sweeps for rate in sweep.rates]
    counts = [len(rate.nlls) for rate in rates]
    text = f"Selection trials, {plural(len(rates), 'point')}, {span_text(counts, 'seed')} for each"
    text += "; bars: one standard deviation over seeds." if max(counts) > 1 else ", hence no interval."
    diverged = sum(rate.num_diverged for rate in rates)
    if diverged:
        text += f" A cross marks divergence ({plural(diverged, 'trial')}), which counts with the base model's loss."
    if numbers.num_unscored:
        text += f" {plural(numbers.num_unscored, 'lost or stopped trial')} left out."
    return text + " A ring marks the selected learning rate."


def alt(numbers: Sweeps) -> str:
    """Read out the bottom of every valley and where it rises."""
    return sentences(_sweep_text(sweep) for sweep in numbers.sweeps)


def _sweep_text(sweep: Sweep) -> str:
    lowest = min(sweep.rates, key=lambda rate: rate.mean_nll or 0.0)
    first, last = sweep.rates[0], sweep.rates[-1]
    return (
        f"{sweep.name}, batch size {sweep.batch_size}: lowest {nats_text(lowest.mean_nll)} nats at learning rate "
        f"{rate_text(lowest.learning_rate)}; {nats_text(first.mean_nll)} at {rate_text(first.learning_rate)}, "
        f"{nats_text(last.mean_nll)} at {rate_text(last.learning_rate)}"
    )


def rows(numbers: Sweeps) -> list[dict[str, Any]]:
    """Return a row for each point."""
    return [
        {
            "series": sweep.name,
            "method": sweep.method,
            "batch_size": sweep.batch_size,
            "learning_rate": rate.learning_rate,
            "validation_nll_mean": rate.mean_nll,
            "validation_nll_sd": rate.sd_nll,
            "num_seeds": len(rate.nlls),
            "num_diverged": rate.num_diverged,
            "selected": rate.learning_rate == sweep.selected_rate,
            "optimum_learning_rate": sweep.optimum_rate,
        }
        for sweep in numbers.sweeps
        for rate in sweep.rates
    ]


FIGURE = Picture("Validation loss against learning rate", 20, compute, draw, caption, alt, rows)
