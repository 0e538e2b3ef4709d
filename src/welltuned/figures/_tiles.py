"""What the maps over learning rate x batch size share: a page of panels with common axes, and each panel's ticks."""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from welltuned.analysis.wording import rate_text
from welltuned.figures import _ink

COLUMNS = 3  # panels beside each other
TILE_INCHES = 0.17  # the height of a row: what a number of 5.5 points needs


def page(num_panels: int, num_rates: int, above_inches: float, panel_inches: float) -> tuple[Figure, list[Axes]]:
    """Return a page with a map for each panel: `panel_inches` beside the rows of tiles, `above_inches` for the rest."""
    columns = min(COLUMNS, num_panels)
    lines = math.ceil(num_panels / columns)
    drawing = _ink.page_figure(above_inches + lines * (panel_inches + TILE_INCHES * num_rates))
    axes = drawing.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).ravel().tolist()
    for spare in axes[num_panels:]:
        spare.remove()
    used = axes[:num_panels]
    for number, panel in enumerate(used):
        if number >= num_panels - columns:
            panel.set_xlabel("batch size")
            panel.tick_params(axis="x", labelbottom=True)
        if number % columns == 0:
            panel.set_ylabel("learning rate")
    return drawing, used


def ticks(axes: Axes, batches: Sequence[int], rates: Sequence[float]) -> None:
    """Write batch sizes and learning rates beside the tiles, which stand at 0, 1, 2, ..."""
    axes.set_facecolor(_ink.BLANK)
    axes.set_xlim(-0.5, len(batches) - 0.5)
    axes.set_ylim(-0.5, len(rates) - 0.5)
    axes.set_xticks(range(len(batches)), [str(batch) for batch in batches])
    axes.set_yticks(range(len(rates)), [rate_text(rate) for rate in rates])
    axes.tick_params(length=0)
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
