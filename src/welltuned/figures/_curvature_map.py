"""Where is a method's curvature larger than LoRA's? Ratios of the largest eigenvalue, layers x modules, by method."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from welltuned.analysis.curvature import JOINT, BlockRow
from welltuned.analysis.wording import plural
from welltuned.figures._picture import Picture, sentences

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap, Normalize
    from matplotlib.figure import Figure

COLUMNS = 3
DARK = 0.55  # above this brightness text is dark


@dataclass(frozen=True)
class Tile:
    """One block. `value` is the ratio to the baseline's eigenvalue, in the baseline's own panel the eigenvalue."""

    layer: int
    module: str
    value: float


@dataclass(frozen=True)
class Panel:
    """One method at one rank."""

    name: str
    is_baseline: bool
    tiles: tuple[Tile, ...]


@dataclass(frozen=True)
class CurvatureMap:
    """The numbers of the figure."""

    panels: tuple[Panel, ...]
    layers: tuple[int, ...]
    modules: tuple[str, ...]
    baseline: str
    num_rows: int  # of data


def compute(rows: Sequence[BlockRow], baseline: str = "lora") -> CurvatureMap | str:
    """Return the tiles of every method, the baseline first, or why there are none."""
    start = [row for row in rows if row.step == 0 and row.block != JOINT and row.layer is not None]
    if not any(row.method == baseline for row in start):
        return f"No block of {baseline} was measured at the start, and ratios are to it."
    base = {(row.block, row.rank, row.alpha): row.hessian_max for row in start if row.method == baseline}
    several = len({(row.rank, row.alpha) for row in start}) > 1
    panels: dict[str, list[Tile]] = {}
    for row in sorted(start, key=lambda one: one.method != baseline):
        name = f"{row.method}, rank {row.rank}, alpha {row.alpha}" if several else row.method
        below = base.get((row.block, row.rank, row.alpha))
        value = row.hessian_max if row.method == baseline else row.hessian_max / below if below else None
        if value is not None and value > 0:
            panels.setdefault(name, []).append(Tile(row.layer or 0, row.module, value))
    return CurvatureMap(
        panels=tuple(Panel(name, name.split(",")[0] == baseline, tuple(tiles)) for name, tiles in panels.items()),
        layers=tuple(sorted({row.layer for row in start if row.layer is not None})),
        modules=tuple(dict.fromkeys(row.module for row in start)),
        baseline=baseline,
        num_rows=start[0].num_rows,
    )


def draw(numbers: CurvatureMap) -> Figure:
    """Draw the baseline's eigenvalues, and each method's ratios to one colour scale, both logarithmic."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LogNorm

    from welltuned.figures import _ink

    with _ink.style():
        columns = min(COLUMNS, len(numbers.panels))
        lines = math.ceil(len(numbers.panels) / columns)
        drawing = _ink.page_figure(0.5 + lines * (0.45 + 0.16 * len(numbers.layers)))
        places = drawing.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).ravel().tolist()
        ratios = [tile.value for panel in numbers.panels if not panel.is_baseline for tile in panel.tiles]
        reach = max([2.0, *(max(value, 1 / value) for value in ratios)])
        own = [tile.value for panel in numbers.panels if panel.is_baseline for tile in panel.tiles]
        scales = {False: LogNorm(1 / reach, reach), True: LogNorm(min(own) / 1.01, max(own) * 1.01)}
        colours = {False: colormaps["RdBu_r"], True: colormaps["Greys"]}
        for axes, panel in zip(places, numbers.panels, strict=False):
            _draw_panel(axes, panel, numbers, scales[panel.is_baseline], colours[panel.is_baseline])
        for spare in places[len(numbers.panels) :]:
            spare.remove()
        if ratios:
            bar = drawing.colorbar(ScalarMappable(scales[False], "RdBu_r"), ax=places[: len(numbers.panels)], aspect=28)
            bar.set_label(f"ratio to {numbers.baseline}'s")
            _ink.plain_log(bar.ax.yaxis)
            bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
            bar.solids.set_edgecolor("face")  # pyright: ignore[reportOptionalMemberAccess]
            bar.solids.set_rasterized(False)  # pyright: ignore[reportOptionalMemberAccess]
        return drawing


def _draw_panel(axes: Axes, panel: Panel, numbers: CurvatureMap, scale: Normalize, colours: Colormap) -> None:
    from matplotlib.patches import Rectangle

    from welltuned.figures import _ink

    axes.set_title(f"{panel.name}, eigenvalue" if panel.is_baseline else panel.name)
    axes.set_facecolor(_ink.BLANK)
    for tile in panel.tiles:
        x, y = numbers.modules.index(tile.module), numbers.layers.index(tile.layer)
        colour = colours(scale(tile.value))
        patch = Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=colour, edgecolor=_ink.PAPER, linewidth=0.6)
        _ink.tip(patch, f"{panel.name}, layer {tile.layer}, {tile.module}: {tile.value:.3g}")
        axes.add_patch(patch)
        brightness = 0.3 * colour[0] + 0.6 * colour[1] + 0.1 * colour[2]
        ink = _ink.ON_LIGHT if brightness > DARK else _ink.ON_DARK
        axes.text(x, y, f"{tile.value:.2g}", ha="center", va="center", fontsize=4.5, color=ink, clip_on=True)
    axes.set_xlim(-0.5, len(numbers.modules) - 0.5)
    axes.set_ylim(len(numbers.layers) - 0.5, -0.5)
    axes.set_xticks(range(len(numbers.modules)), list(numbers.modules), rotation=60)
    axes.set_yticks(range(len(numbers.layers)), [str(layer) for layer in numbers.layers])
    axes.tick_params(length=0, labelbottom=True)
    axes.set_ylabel("layer")


def caption(numbers: CurvatureMap) -> str:
    """State what is counted."""
    return (
        f"The largest eigenvalue of the Hessian of each block (one site's trained numbers, all others fixed) at the "
        f"start, of the mean loss over {plural(numbers.num_rows, 'training row')}: {numbers.baseline}'s own, and each "
        "method's ratio to it in the same block. One seed; one initialisation."
    )


def alt(numbers: CurvatureMap) -> str:
    """Read out the range of every panel."""
    return sentences(
        f"{panel.name}: from {min(tile.value for tile in panel.tiles):.3g} to "
        f"{max(tile.value for tile in panel.tiles):.3g} over {plural(len(panel.tiles), 'block')}"
        for panel in numbers.panels
    )


def rows(numbers: CurvatureMap) -> list[dict[str, Any]]:
    """Return a row for each tile."""
    return [
        {"panel": panel.name, "layer": tile.layer, "module": tile.module, "value": tile.value}
        for panel in numbers.panels
        for tile in panel.tiles
    ]


PICTURE = Picture("Largest eigenvalues by layer and module", 0, compute, draw, caption, alt, rows)
