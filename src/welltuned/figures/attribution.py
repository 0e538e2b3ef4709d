"""Is it the learning rate, the batch size or the method? Shares of the loss's variance, before and after tuning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from welltuned.analysis.attribution import Attribution, Variance, attribution
from welltuned.analysis.wording import percent_text, plural
from welltuned.figures import _places
from welltuned.figures._picture import Picture, sentences
from welltuned.records import Declaration, Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_PANELS = 6  # problems; assumed: what one page holds
REST = "rest"  # what no term explains


@dataclass(frozen=True)
class Bar:
    """One term's share of the variance; None where it does not vary in that decomposition."""

    term: str
    raw: float | None
    tuned: float | None


@dataclass(frozen=True)
class Panel:
    """One problem."""

    name: str
    bars: tuple[Bar, ...]
    num_raw: int
    num_tuned: int
    sd_raw: float | None
    sd_tuned: float | None
    confounded: float  # the larger of the two decompositions
    reason: str


@dataclass(frozen=True)
class Shares:
    """The numbers of the figure."""

    panels: tuple[Panel, ...]
    num_left_out: int


def compute(results: Sequence[Result], declaration: Declaration) -> Shares | str:
    """Return the shares of every problem, or why there are none."""
    del declaration
    table = _places.loss_table(results)
    if not any(run.selected for run in table.runs):
        return "No selection trial has a score yet."
    found = [one for one in attribution(table) if one.raw or one.tuned]
    if not found:
        return "Nothing varies but the seeds, or all losses are equal."
    names = _places.names_of([one.place for one in found])
    panels = tuple(_panel(one, names[one.place]) for one in found[:MOST_PANELS])
    return Shares(panels, len(found) - len(panels))


def _panel(found: Attribution, name: str) -> Panel:
    raw, tuned = _shares(found.raw), _shares(found.tuned)
    terms = list(dict.fromkeys([*raw, *tuned]))
    terms = [*(term for term in terms if term != REST), REST]
    variances = [one for one in (found.raw, found.tuned) if one is not None]
    return Panel(
        name=name,
        bars=tuple(Bar(term, raw.get(term), tuned.get(term)) for term in terms),
        num_raw=found.raw.num_values if found.raw else 0,
        num_tuned=found.tuned.num_values if found.tuned else 0,
        sd_raw=found.raw.sd if found.raw else None,
        sd_tuned=found.tuned.sd if found.tuned else None,
        confounded=max(one.confounded for one in variances),
        reason=found.reason,
    )


def _shares(found: Variance | None) -> dict[str, float]:
    if found is None:
        return {}
    terms = {" × ".join(part.replace("_", " ") for part in term.factors): term.share for term in found.terms}
    return terms | {REST: found.residual}


def draw(numbers: Shares) -> Figure:
    """Draw a bar for each term, filled for all trials and hatched for the tuned cells."""
    from matplotlib.patches import Patch

    from welltuned.figures import _ink

    with _ink.style():
        most = max(len(panel.bars) for panel in numbers.panels)
        single = len(numbers.panels) == 1
        height = 0.55 + 0.24 * most
        drawing = _ink.column_figure(height) if single else _ink.page_figure(height * ((len(numbers.panels) + 1) // 2))
        grid = drawing.subplots((len(numbers.panels) + 1) // 2, 1 if single else 2, squeeze=False, sharex=True)
        panels = grid.ravel().tolist()
        for axes, panel in zip(panels, numbers.panels, strict=False):
            _draw_panel(axes, panel)
        for spare in panels[len(numbers.panels) :]:
            spare.remove()
        handles = [
            Patch(facecolor=_ink.COLOURS[0], label="all trials"),
            Patch(facecolor=_ink.COLOURS[4], hatch="////", edgecolor=_ink.INK, linewidth=0.4, label="tuned"),
        ]
        _ink.legend_of(drawing, handles, ["all trials", "learning rate tuned"], 2)
        return drawing


def _draw_panel(axes: Axes, panel: Panel) -> None:
    from welltuned.figures import _ink

    _ink.grid(axes, "x")
    if panel.name:
        axes.set_title(panel.name)
    plain: dict[str, Any] = {"color": _ink.COLOURS[0]}
    hatched: dict[str, Any] = {"color": _ink.COLOURS[4], "hatch": "////", "edgecolor": _ink.INK, "linewidth": 0.4}
    for number, bar in enumerate(panel.bars):
        for share, offset, style in ((bar.raw, -0.2, plain), (bar.tuned, 0.2, hatched)):
            if share is not None:
                (patch,) = axes.barh([number + offset], [100 * share], 0.36, **style)
                _ink.tip(patch, f"{bar.term}, {'all trials' if offset < 0 else 'tuned'}: {percent_text(share)}")
                axes.text(100 * share + 1, number + offset, f"{100 * share:.1f}", va="center", fontsize=6)
    axes.set_yticks(range(len(panel.bars)), [bar.term for bar in panel.bars])
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.set_xlim(0, 109)
    axes.set_xlabel("share of the variance, %")


def caption(numbers: Shares) -> str:
    """State the estimator, n, what tuning leaves, and what cannot be told apart."""
    raw = sum(panel.num_raw for panel in numbers.panels)
    tuned = sum(panel.num_tuned for panel in numbers.panels)
    text = (
        f"Share of each factor in the variance of validation NLL (type II sums of squares, no interval): over "
        f"{plural(raw, 'selection trial')}, and over {plural(tuned, 'value')} at the tuned learning rates, on fresh "
        "seeds where there are reruns. The rest: higher interactions, and the seeds where they are no factor."
    )
    spreads = [(panel.sd_raw, panel.sd_tuned) for panel in numbers.panels]
    if len(spreads) == 1 and spreads[0][0] is not None and spreads[0][1] is not None:
        text += f" Standard deviation: {spreads[0][0]:.3f} nats before and {spreads[0][1]:.3f} after tuning."
    confounded = max(panel.confounded for panel in numbers.panels)
    if confounded > 0:
        text += f" The design is not balanced: up to {percent_text(confounded)} belongs to no single factor."
    missing = sum(bool(panel.reason) for panel in numbers.panels)
    if missing:
        text += f" {plural(missing, 'problem')} without one of the two, as nothing varies in it."
    return text + (f" {plural(numbers.num_left_out, 'problem')} left out." if numbers.num_left_out else "")


def alt(numbers: Shares) -> str:
    """Read out every bar."""
    return sentences(
        f"{f'{panel.name}: ' if panel.name else ''}{bar.term}, {_bar_text(bar)}"
        for panel in numbers.panels
        for bar in panel.bars
    )


def _bar_text(bar: Bar) -> str:
    parts = [(bar.raw, "of all trials"), (bar.tuned, "once the learning rate is tuned")]
    return ", ".join(f"{percent_text(share)} {what}" for share, what in parts if share is not None)


def rows(numbers: Shares) -> list[dict[str, Any]]:
    """Return a row for each term."""
    return [
        {
            "term": bar.term,
            "problem": panel.name,
            "share_all_trials": bar.raw,
            "share_tuned": bar.tuned,
            "num_trials": panel.num_raw,
            "num_tuned_values": panel.num_tuned,
            "sd_all_trials_nats": panel.sd_raw,
            "sd_tuned_nats": panel.sd_tuned,
            "confounded": panel.confounded,
        }
        for panel in numbers.panels
        for bar in panel.bars
    ]


FIGURE = Picture("Is it the learning rate, the batch size or the method?", 60, compute, draw, caption, alt, rows)
