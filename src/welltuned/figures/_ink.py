"""How every figure looks: the widths of a two-column paper, colours that survive colour blindness, tooltips on points.

A tooltip is written into the artist's SVG id, as "tip:" and the text; report/svg.py turns such ids into `<title>`. The
page shows the same drawing on a dark ground by giving the colours named here others (report/css.py): what must keep its
colour there, such as text on a coloured tile, is drawn in `ON_LIGHT` or `ON_DARK`.
"""

import math
import textwrap
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from welltuned.analysis.wording import rate_text

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#4D4D4D")  # Okabe and Ito 2008
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", "--", ":", "-.")
INK, SOFT, GRID, PAPER, BLANK = "#1f2328", "#6b7280", "#e5e7eb", "#ffffff", "#f3f4f6"
ON_LIGHT, ON_DARK = "#101010", "#fdfdfd"  # text on a coloured ground, light or dark
COLUMN_INCHES, PAGE_INCHES = 3.25, 6.75  # a column and both of ICML's style; IEEE's and ACM's are a little wider
LEGEND_LETTERS = 46  # of a name, before it is broken: what fits into a column
LEGEND_LINES, LEGEND_LINE_INCHES = 2, 0.14  # the lines that a figure's height has room for, and what one more takes
TIP = "tip:"
LOSS_LABEL = "validation NLL, nats"
LOG_FACTOR = 5.0  # largest over smallest from which an axis is logarithmic: else the best fifth is a line. Assumed

STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so that text has the same size everywhere
    "font.size": 7.5,
    "text.parse_math": False,  # names come from a user's file and may hold a dollar sign
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "welltuned",  # the same numbers give the same bytes
    "pdf.fonttype": 42,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "axes.titlesize": 8,
    "axes.titlepad": 4.0,
    "axes.labelpad": 2.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.linewidth": 0.6,
    "axes.facecolor": PAPER,
    "figure.facecolor": PAPER,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "xtick.minor.size": 1.5,
    "ytick.minor.size": 1.5,
    "xtick.major.pad": 2.0,
    "ytick.major.pad": 2.0,
    "text.color": INK,
    "lines.linewidth": 1.2,
    "lines.markersize": 4.2,
    "legend.frameon": False,
    "legend.fontsize": 7.5,
    "hatch.linewidth": 0.6,
    "figure.dpi": 100,
    "savefig.dpi": 300,
    "savefig.facecolor": PAPER,
}


@dataclass(frozen=True)
class Look:
    """The colour, marker and dash pattern of one series."""

    colour: str
    marker: str
    dash: Any  # one of DASHES; the stubs want a literal


def style() -> AbstractContextManager[None]:
    """Return the context in which to draw and to write a figure."""
    return matplotlib.rc_context(STYLE)


def looks(series: Sequence[tuple[str, str]]) -> dict[str, Look]:
    """Give each (method, label) a look: the colour and marker tell the method, the dashes tell its variants apart.

    Beyond as many methods as there are colours, a colour comes again with the next marker.
    """
    methods = sorted({method for method, _ in series})
    seen: dict[str, list[str]] = {method: [] for method in methods}
    for method, name in series:
        if name not in seen[method]:
            seen[method].append(name)
    given: dict[str, Look] = {}
    for number, method in enumerate(methods):
        for variant, name in enumerate(seen[method]):
            again, index = divmod(number, len(COLOURS))
            marker = MARKERS[(index + again) % len(MARKERS)]
            given[name] = Look(COLOURS[index], marker, DASHES[(variant + again) % len(DASHES)])
    return given


def column_figure(height_inches: float) -> Figure:
    """Return an empty figure as wide as one column of a paper."""
    return Figure(figsize=(COLUMN_INCHES, height_inches), layout="constrained")


def page_figure(height_inches: float) -> Figure:
    """Return an empty figure as wide as both columns of a paper."""
    return Figure(figsize=(PAGE_INCHES, height_inches), layout="constrained")


def tip(artist: Artist, text: str) -> None:
    """Give an artist a tooltip."""
    artist.set_gid(TIP + text)


def tip_point(axes: Axes, x: float, y: float, text: str) -> None:
    """Put an invisible disc with a tooltip over a point, larger than its marker and so easier to hit."""
    (line,) = axes.plot([x], [y], "o", color=PAPER, markersize=10, alpha=0.0, zorder=9)
    tip(line, text)


def grid(axes: Axes, axis: Any = "y") -> None:
    """Draw light grid lines across one axis, or "both"."""
    axes.grid(True, axis=axis, color=GRID, linewidth=0.6)


def batch_axis(axes: Axes, batches: Sequence[int]) -> None:
    """Make x a logarithmic axis with a tick at every batch size that was tried."""
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator([float(batch) for batch in batches]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim(batches[0] / 1.45, batches[-1] * 1.45)
    axes.set_xlabel("batch size (log scale)")


def rate_axis(axes: Axes, which: str) -> None:
    """Make an axis ("x" or "y") logarithmic with plainly written learning rates."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    low, high = sorted(axes.get_xlim() if which == "x" else axes.get_ylim())
    narrow = math.log10(high / low) < 2  # then 2 and 5 get a tick of their own
    axis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0) if narrow and which == "y" else (1.0,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: rate_text(value)))
    axis.set_minor_locator(LogLocator(base=10, subs=(2, 3, 4, 5, 6, 7, 8, 9)))
    axis.set_minor_formatter(NullFormatter())


def loss_axis(axes: Axes, losses: Sequence[float], label: str = LOSS_LABEL) -> None:
    """Make y the axis of a loss: logarithmic where the losses span a factor of `LOG_FACTOR`, and labelled as it is."""
    if spans(losses):
        axes.set_yscale("log")
        axes.set_ylim(min(losses) / 1.15, max(losses) * 1.15)
        plain_log(axes.yaxis)
        label += " (log scale)"
    axes.set_ylabel(label)


def loss_scale(losses: Sequence[float]) -> Normalize:
    """Return the colour scale of losses, logarithmic where they span a factor of `LOG_FACTOR`."""
    low, high = min(losses), max(losses)
    if spans(losses):
        return LogNorm(low, high)
    return Normalize(low, high if high > low else low + 1e-9)


def spans(values: Sequence[float]) -> bool:
    """Say whether values ask for a logarithmic axis."""
    return min(values) > 0 and max(values) >= LOG_FACTOR * min(values)


def plain_log(axis: Any) -> None:
    """Write the ticks of a logarithmic axis as plain numbers: 0.05, 0.1, 0.2."""
    axis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def dodge(number: int, count: int) -> float:
    """Return the factor that moves series `number` of `count` aside on a logarithmic axis."""
    return 2.0 ** (0.09 * (number - (count - 1) / 2))


def legend(drawing: Figure, axes: Axes, columns: int = 4) -> None:
    """Put one legend above all panels."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        legend_of(drawing, handles, labels, columns)


def legend_of(drawing: Figure, handles: Sequence[Any], labels: Sequence[str], columns: int) -> None:
    """Put a legend of these handles above all panels, in as many columns as their names have room for, at most.

    The figure grows by what a long legend takes, so that the panels keep their height.
    """
    labels = [textwrap.fill(name, LEGEND_LETTERS) for name in labels]
    longest = max(len(line) for name in labels for line in name.split("\n"))
    room = drawing.get_figwidth() / (0.35 + 0.055 * longest)  # inches of a handle, and of a letter at 7.5 points
    columns = max(1, min(columns, len(labels), int(room)))
    num_lines = math.ceil(sum(name.count("\n") + 1 for name in labels) / columns)
    drawing.set_figheight(drawing.get_figheight() + LEGEND_LINE_INCHES * max(0, num_lines - LEGEND_LINES))
    drawing.legend(
        handles,
        labels,
        loc="outside upper left",
        ncols=columns,
        handlelength=1.9,
        columnspacing=1.1,
        handletextpad=0.5,
        borderaxespad=0.1,
        labelspacing=0.3,
    )
