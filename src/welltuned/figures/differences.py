"""How far is each method from the baseline? The verdict's paired differences with their intervals and the margin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from welltuned.analysis.wording import plural, signed
from welltuned.figures._picture import Picture, sentences, span_text
from welltuned.records import Declaration, Pair, Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Differences:
    """The numbers of the figure: the pairs that have a difference, of one metric."""

    baseline: str
    metric: str  # "accuracy", "loss"
    pairs: tuple[Pair, ...]
    num_missing: int  # pairs without a difference, or judged in another metric

    @property
    def unit(self) -> str:
        """Return the unit of what is drawn."""
        return "points" if self.metric == "accuracy" else "nats"

    def drawn(self, value: float) -> float:
        """Return a value in that unit."""
        return 100 * value if self.metric == "accuracy" else value

    def text(self, value: float | None) -> str:
        """Write a value in that unit, with its sign."""
        return "?" if value is None else signed(self.drawn(value), 1 if self.metric == "accuracy" else 4)


def compute(results: Sequence[Result], declaration: Declaration) -> Differences | str:
    """Return the stored verdict's differences, or why there are none."""
    del results
    comparison = declaration.comparison
    if comparison is None:
        return "No verdict is stored: welltuned compare makes one."
    known = [pair for pair in comparison.pairs if pair.difference is not None]
    if not known:
        return "No pair of methods has a difference."
    pairs = tuple(pair for pair in known if pair.metric == known[0].metric)
    return Differences(comparison.baseline, known[0].metric, pairs, len(comparison.pairs) - len(pairs))


def draw(numbers: Differences) -> Figure:
    """Draw a line for each pair: the 95 % interval thin, the 90 % one thick; the margin as a band."""
    from welltuned.figures import _ink

    with _ink.style():
        drawing = _ink.column_figure(0.9 + 0.26 * len(numbers.pairs))
        axes = drawing.subplots()
        _ink.grid(axes, "x")
        for row, pair in enumerate(numbers.pairs):
            _draw_pair(axes, row, pair, numbers)
        axes.axvline(0, color=_ink.INK, linewidth=0.8, zorder=1)
        axes.set_yticks(range(len(numbers.pairs)), [_name(pair) for pair in numbers.pairs])
        axes.set_ylim(len(numbers.pairs) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        noun = "test accuracy, points" if numbers.metric == "accuracy" else "validation NLL, nats"
        axes.set_xlabel(f"difference to {numbers.baseline}: {noun}")
        return drawing


def _draw_pair(axes: Axes, row: int, pair: Pair, numbers: Differences) -> None:
    from welltuned.figures import _ink

    margin = numbers.drawn(pair.margin)
    axes.fill_betweenx([row - 0.4, row + 0.4], -margin, margin, color=_ink.SOFT, alpha=0.15, linewidth=0)
    for low, high, width in ((pair.low, pair.high, 0.9), (pair.low_90, pair.high_90, 2.4)):
        if low is not None and high is not None:
            axes.plot([numbers.drawn(low), numbers.drawn(high)], [row, row], color=_ink.COLOURS[0], linewidth=width)
    assert pair.difference is not None, "pairs without one are left out"
    axes.plot([numbers.drawn(pair.difference)], [row], "o", color=_ink.COLOURS[0], markersize=4.5)
    _ink.tip_point(axes, numbers.drawn(pair.difference), row, _told(pair, numbers))


def _name(pair: Pair) -> str:
    return f"{pair.method} ({pair.problem})" if pair.problem else pair.method


def _told(pair: Pair, numbers: Differences) -> str:
    span = "no interval" if pair.low is None else f"95 % {numbers.text(pair.low)} to {numbers.text(pair.high)}"
    return f"{_name(pair)}: {numbers.text(pair.difference)} {numbers.unit}, {span}, {pair.words}"


def caption(numbers: Differences) -> str:
    """State n, seeds, the intervals, the margin, and what is left out."""
    items = sorted({pair.num_items for pair in numbers.pairs if pair.num_items is not None})
    on = f" on {' and '.join(f'{count:,}' for count in items)} test items" if items else ""
    better = "right of 0 is better" if numbers.metric == "accuracy" else "left of 0 is better"
    seeds = span_text((pair.num_seeds for pair in numbers.pairs), "shared fresh seed")
    text = (
        f"{plural(len(numbers.pairs), 'method')} against {numbers.baseline}, each at its best configuration, on "
        f"{seeds}{on}; {better}. Thin: 95 % interval "
        "for other seeds and items; thick: 90 %; grey: the margin. Equivalent: the thick line lies within the grey."
    )
    return text + (
        f" {plural(numbers.num_missing, 'pair')} without a difference left out." if numbers.num_missing else ""
    )


def alt(numbers: Differences) -> str:
    """Read out every pair."""
    return sentences(_told(pair, numbers) for pair in numbers.pairs)


def rows(numbers: Differences) -> list[dict[str, Any]]:
    """Return a row for each pair, in the metric's own unit."""
    return [asdict(pair) for pair in numbers.pairs]


FIGURE = Picture("Differences to the baseline", 5, compute, draw, caption, alt, rows)
