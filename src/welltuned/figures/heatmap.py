"""Is the good region one diagonal? Validation NLL over learning rate x batch size, a panel per method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from welltuned.analysis.cells import Cell, group, order
from welltuned.analysis.wording import Key, label, nats_text, plural, rate_text
from welltuned.figures._picture import Picture, sentences, span_text
from welltuned.records import Declaration, Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

DARK = 0.55  # above this brightness text is dark


@dataclass(frozen=True)
class Tile:
    """One learning rate at one batch size."""

    batch_size: int
    learning_rate: float
    nll: float
    num_seeds: int
    num_diverged: int
    selected: bool


@dataclass(frozen=True)
class Panel:
    """One method, or one of its variants."""

    name: str
    method: str
    tiles: tuple[Tile, ...]


@dataclass(frozen=True)
class Heatmap:
    """The numbers of the figure; the axes are shared, a combination without a trial stays blank."""

    panels: tuple[Panel, ...]
    batches: tuple[int, ...]
    rates: tuple[float, ...]
    num_blank: int


def compute(results: Sequence[Result], declaration: Declaration) -> Heatmap | str:
    """Return the tiles of every panel, or why there are none."""
    members: dict[Key, list[Cell]] = {}
    for cell in group(results, declaration.cell):
        if cell.scored:
            members.setdefault(cell.series, []).append(cell)
    panels = tuple(_panel(key, members[key]) for key in sorted(members, key=order))
    tiles = [tile for panel in panels for tile in panel.tiles]
    batches = tuple(sorted({tile.batch_size for tile in tiles}))
    rates = tuple(sorted({tile.learning_rate for tile in tiles}))
    if not tiles:
        return "No selection trial has a score yet."
    if len(batches) < 2 or len(rates) < 2:
        return "A map needs two batch sizes and two learning rates."
    return Heatmap(panels, batches, rates, len(panels) * len(batches) * len(rates) - len(tiles))


def _panel(key: Key, cells: Sequence[Cell]) -> Panel:
    tiles = tuple(
        Tile(
            cell.config.batch_size,
            rate.learning_rate,
            rate.mean_nll,
            len(rate.nlls),
            rate.num_diverged,
            rate.learning_rate == cell.selected_rate,
        )
        for cell in cells
        for rate in cell.scored
        if rate.mean_nll is not None
    )
    return Panel(label(key) if key else cells[0].config.method, cells[0].config.method, tiles)


def draw(numbers: Heatmap) -> Figure:
    """Draw a panel for each method to one colour scale."""
    from matplotlib.cm import ScalarMappable

    from welltuned.figures import _ink, _tiles

    with _ink.style():
        drawing, panels = _tiles.page(len(numbers.panels), len(numbers.rates), 0.35, 0.4)
        losses = [tile.nll for panel in numbers.panels for tile in panel.tiles]
        scale = _ink.loss_scale(losses)
        for axes, panel in zip(panels, numbers.panels, strict=True):
            _draw_panel(axes, panel, numbers, scale)
        bar = drawing.colorbar(ScalarMappable(scale, "viridis_r"), ax=panels, shrink=0.9, pad=0.015, aspect=28)
        bar.set_label(_ink.LOSS_LABEL + (" (log scale)" if _ink.spans(losses) else ""))
        if _ink.spans(losses):
            _ink.plain_log(bar.ax.yaxis)
        bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
        bar.ax.tick_params(length=0)
        bar.solids.set_edgecolor("face")  # pyright: ignore[reportOptionalMemberAccess]
        bar.solids.set_rasterized(False)  # pyright: ignore[reportOptionalMemberAccess]  # no picture inside the SVG
        return drawing


def _draw_panel(axes: Axes, panel: Panel, numbers: Heatmap, scale: Normalize) -> None:
    from matplotlib import colormaps
    from matplotlib.patches import Rectangle

    from welltuned.figures import _ink, _tiles

    colours = colormaps["viridis_r"]
    size = 5.5 if len(numbers.batches) <= 6 else 4.5
    axes.set_title(panel.name)
    for tile in panel.tiles:
        x, y = numbers.batches.index(tile.batch_size), numbers.rates.index(tile.learning_rate)
        colour = colours(scale(tile.nll))
        patch = Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=colour, edgecolor=_ink.PAPER, linewidth=0.6)
        _ink.tip(patch, _tip(panel, tile))
        axes.add_patch(patch)
        brightness = 0.3 * colour[0] + 0.6 * colour[1] + 0.1 * colour[2]
        ink = _ink.ON_LIGHT if brightness > DARK else _ink.ON_DARK
        text = "×" if tile.num_diverged else f"{tile.nll:.3f}"
        axes.text(x, y, text, ha="center", va="center", fontsize=size, color=ink, clip_on=True)
        if tile.selected:
            ring = Rectangle(
                (x - 0.46, y - 0.44), 0.92, 0.88, fill=False, edgecolor=_ink.COLOURS[1], linewidth=1.5, zorder=5
            )
            axes.add_patch(ring)
    _tiles.ticks(axes, numbers.batches, numbers.rates)


def _tip(panel: Panel, tile: Tile) -> str:
    text = f"{panel.name}, batch {tile.batch_size}, learning rate {rate_text(tile.learning_rate)}"
    text += f": {nats_text(tile.nll)}, {plural(tile.num_seeds, 'seed')}"
    return text + (f", {tile.num_diverged} diverged" if tile.num_diverged else "")


def caption(numbers: Heatmap) -> str:
    """State n, what the marks mean, and what is blank."""
    tiles = [tile for panel in numbers.panels for tile in panel.tiles]
    seeds = span_text([tile.num_seeds for tile in tiles], "seed")
    text = (
        f"Selection trials, {plural(len(tiles), 'tile')}, mean over {seeds} for each, without an interval; a frame "
        "marks the selected learning rate of a batch size."
    )
    diverged = sum(tile.num_diverged for tile in tiles)
    if diverged:
        text += f" × marks divergence ({plural(diverged, 'trial')}), coloured as the base model's loss."
    return text + (" Grey: not tried, or without a score." if numbers.num_blank else "")


def alt(numbers: Heatmap) -> str:
    """Read out the selected tile of every column, and the range of each panel."""
    return sentences(_panel_text(panel) for panel in numbers.panels)


def _panel_text(panel: Panel) -> str:
    losses = [tile.nll for tile in panel.tiles]
    chosen = ", ".join(
        f"{nats_text(tile.nll)} at batch size {tile.batch_size} and {rate_text(tile.learning_rate)}"
        for tile in panel.tiles
        if tile.selected
    )
    diverged = sum(tile.num_diverged > 0 for tile in panel.tiles)
    text = f"{panel.name}: from {nats_text(min(losses))} to {nats_text(max(losses))} nats; selected: {chosen}"
    return text + (f"; {plural(diverged, 'tile')} diverged" if diverged else "")


def rows(numbers: Heatmap) -> list[dict[str, Any]]:
    """Return a row for each tile."""
    return [
        {
            "series": panel.name,
            "method": panel.method,
            "batch_size": tile.batch_size,
            "learning_rate": tile.learning_rate,
            "validation_nll_mean": tile.nll,
            "num_seeds": tile.num_seeds,
            "num_diverged": tile.num_diverged,
            "selected": tile.selected,
        }
        for panel in numbers.panels
        for tile in panel.tiles
    ]


FIGURE = Picture("Learning rate × batch size", 30, compute, draw, caption, alt, rows)
