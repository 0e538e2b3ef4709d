"""How good does each method look after k trials? The expected best validation loss, exactly, from the whole grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from welltuned.analysis.tuning_curve import BAND, tuning_curves
from welltuned.analysis.wording import nats_text, plural
from welltuned.figures import _places
from welltuned.figures._picture import Picture, sentences, span_text
from welltuned.records import Declaration, Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from welltuned.figures._ink import Look


@dataclass(frozen=True)
class Curve:
    """One line; entry k - 1 is after k trials. `low` is the better end of the band: losses are better low."""

    name: str
    method: str
    expected: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    num_diverged: int


@dataclass(frozen=True)
class Curves:
    """The numbers of the figure."""

    curves: tuple[Curve, ...]
    seeds: tuple[int, int]


def compute(results: Sequence[Result], declaration: Declaration) -> Curves | str:
    """Return every method's curve, or why there is none."""
    del declaration
    from welltuned.analysis.grid import means

    table = _places.loss_table(results)
    table = table.only([run for run in table.runs if run.selected])
    if not table.runs:
        return "No selection trial has a score yet."
    found = tuning_curves(table)
    if all(len(one.expected) < 2 for one in found):
        return "Every method has one configuration, so that there is nothing to tune."
    names = _places.names_of([one.place for one in found])
    curves = tuple(
        Curve(
            name=_places.series_name(one.place.method, names[one.place]),
            method=one.place.method,
            expected=one.expected,
            low=tuple(min(pair) for pair in zip(one.low, one.high, strict=True)),
            high=tuple(max(pair) for pair in zip(one.low, one.high, strict=True)),
            num_diverged=one.num_diverged,
        )
        for one in sorted(found, key=lambda one: (one.place.method, names[one.place]))
    )
    counts = [member.num_seeds for member in means(table)]
    return Curves(curves, (min(counts), max(counts)))


def draw(numbers: Curves) -> Figure:
    """Draw the expected best with its band, on a logarithmic axis of trials."""
    from welltuned.figures import _ink

    with _ink.style():
        drawing = _ink.column_figure(2.35)
        axes = drawing.add_subplot()
        _ink.grid(axes)
        look_of = _ink.looks([(one.method, one.name) for one in numbers.curves])
        for one in numbers.curves:
            _draw_curve(axes, one, look_of[one.name])
        most = max(len(one.expected) for one in numbers.curves)
        axes.set_xscale("log")
        ticks = [k for k in (1, 2, 3, 5, 10, 20, 30, 50, 100, 200, 300, 500, 1000) if k <= most]
        axes.set_xticks(ticks, [str(k) for k in ticks])
        axes.minorticks_off()
        axes.set_xlim(0.9, most * 1.1)
        axes.set_xlabel("trials of tuning (log scale)")
        losses = [value for one in numbers.curves for line in (one.expected, one.low, one.high) for value in line]
        _ink.loss_axis(axes, losses, "best validation NLL, nats")
        _ink.legend(drawing, axes)
        return drawing


def _draw_curve(axes: Axes, one: Curve, look: Look) -> None:
    from welltuned.figures import _ink

    k = list(range(1, len(one.expected) + 1))
    marks = sorted({min(round(1.6**power), len(k)) - 1 for power in range(20)})
    axes.fill_between(k, one.low, one.high, color=look.colour, alpha=0.13, linewidth=0)
    axes.plot(k, one.expected, look.dash, color=look.colour, marker=look.marker, markevery=marks, label=one.name)
    for index in marks:
        text = f"{one.name}, {plural(index + 1, 'trial')}: {nats_text(one.expected[index])}"
        span = f"{nats_text(one.low[index])} to {nats_text(one.high[index])}"
        _ink.tip_point(axes, k[index], one.expected[index], f"{text} ({span})")


def caption(numbers: Curves) -> str:
    """State n, seeds, what the band is, and what a diverged trial counts as."""
    sizes = [len(one.expected) for one in numbers.curves]
    text = (
        "Expected lowest validation NLL of k configurations drawn without replacement from a method's "
        f"{span_text(sizes, 'configuration')}, {span_text(numbers.seeds, 'seed')} each: exact, no simulation. Band: "
        f"{100 * BAND[0]:.0f} % to {100 * BAND[1]:.0f} % over which k are drawn, not over seeds."
    )
    diverged = sum(one.num_diverged for one in numbers.curves)
    if diverged:
        text += f" {plural(diverged, 'diverged configuration')} counted with the base model's loss."
    return text + " The value at the right end is the one that was selected on, and too good."


def alt(numbers: Curves) -> str:
    """Read out every curve at 1, a few, and all trials."""
    return sentences(_curve_text(one) for one in numbers.curves)


def _curve_text(one: Curve) -> str:
    most = len(one.expected)
    steps = sorted({1, min(5, most), min(10, most), most})
    return f"{one.name}: " + ", ".join(f"{nats_text(one.expected[k - 1])} after {plural(k, 'trial')}" for k in steps)


def rows(numbers: Curves) -> list[dict[str, Any]]:
    """Return a row for each number of trials."""
    return [
        {
            "series": one.name,
            "method": one.method,
            "num_trials": k + 1,
            "expected_best_nll": one.expected[k],
            "band_low_nll": one.low[k],
            "band_high_nll": one.high[k],
        }
        for one in numbers.curves
        for k in range(len(one.expected))
    ]


FIGURE = Picture("What tuning buys", 70, compute, draw, caption, alt, rows)
