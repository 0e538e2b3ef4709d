"""Which configurations does no other beat in both loss and time? Every configuration, and the front they form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from welltuned.analysis.cost import trades
from welltuned.analysis.grid import means
from welltuned.analysis.wording import nats_text, plural, rate_text, seconds_text
from welltuned.figures import _places
from welltuned.figures._picture import Picture, sentences, span_text
from welltuned.records import Declaration, Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from welltuned.figures._ink import Look

LEAST_SPREAD = (
    1.25  # dearest over cheapest from which time is worth a picture: timings of equal work differ so; assumed
)
LABEL_WIDTH, LABEL_HEIGHT = 0.35, 0.07  # of a panel, what a label takes
MOST_PROBLEMS = 6  # panels; assumed: what one page holds


@dataclass(frozen=True)
class Point:
    """One configuration."""

    method: str
    name: str  # the configuration in words
    learning_rate: float | None
    batch_size: int | None
    seconds: float
    nll: float
    on_front: bool


@dataclass(frozen=True)
class Panel:
    """One problem."""

    name: str
    points: tuple[Point, ...]

    @property
    def front(self) -> tuple[Point, ...]:
        """Return the front, cheapest first."""
        return tuple(sorted((point for point in self.points if point.on_front), key=lambda point: point.seconds))


@dataclass(frozen=True)
class Pareto:
    """The numbers of the figure."""

    panels: tuple[Panel, ...]
    methods: tuple[str, ...]
    seeds: tuple[int, int]
    num_untimed: int
    num_diverged: int
    num_left_out: int  # problems


def compute(results: Sequence[Result], declaration: Declaration) -> Pareto | str:
    """Return every configuration's loss and seconds, or why there are none."""
    del declaration
    timed = [result for result in results if result.seconds > 0]
    table = _places.loss_table(timed)
    scored = [run for run in table.runs if run.selected]
    table = table.only([run for run in scored if not run.diverged])  # one that ends early is cheap, and no bargain
    if not table.runs:
        return "No selection trial has a score and a recorded time."
    members = means(table)
    if len(members) < 2:
        return "The study has one configuration."
    found = trades(table)
    costs = [one.cost for one in found]
    if max(costs) < LEAST_SPREAD * min(costs):
        return "All configurations took nearly the same time, so that there is nothing to trade."
    problems = list(dict.fromkeys(one.place.problem for one in found))
    places = [one.place.without("learning_rate", "batch_size", "rank", "method") for one in found]
    names = {place.problem: name for place, name in _places.names_of(places).items()}
    panels = tuple(
        Panel(names[problem], tuple(_point(one) for one in found if one.place.problem == problem))
        for problem in problems[:MOST_PROBLEMS]
    )
    counts = [member.num_seeds for member in members]
    whole = [run for run in _places.loss_table(results).runs if run.selected]
    return Pareto(
        panels=panels,
        methods=tuple(sorted({point.method for panel in panels for point in panel.points})),
        seeds=(min(counts), max(counts)),
        num_untimed=len(whole) - len(scored),
        num_diverged=len(scored) - len(table.runs),
        num_left_out=len(problems) - len(panels),
    )


def _point(trade: Any) -> Point:
    place = trade.place
    return Point(
        place.method, place.label, place.learning_rate, place.batch_size, trade.cost, trade.value, trade.on_front
    )


def draw(numbers: Pareto) -> Figure:
    """Draw every configuration faintly and the front as steps."""
    from welltuned.figures import _ink

    with _ink.style():
        single = len(numbers.panels) == 1
        lines = (len(numbers.panels) + 2) // 3
        drawing = _ink.column_figure(2.35) if single else _ink.page_figure(0.3 + 2.0 * lines)
        panels = drawing.subplots(lines, 1 if single else 3, squeeze=False).ravel().tolist()
        look_of = _ink.looks([(method, method) for method in numbers.methods])
        for axes, panel in zip(panels, numbers.panels, strict=False):
            _draw_panel(axes, panel, look_of)
        for spare in panels[len(numbers.panels) :]:
            spare.remove()
        _legend(drawing, numbers, look_of)
        return drawing


def _draw_panel(axes: Axes, panel: Panel, look_of: dict[str, Look]) -> None:
    from welltuned.figures import _ink

    _ink.grid(axes)
    if panel.name:
        axes.set_title(panel.name)
    front = panel.front
    dearest = max(point.seconds for point in panel.points)
    x, y = [point.seconds for point in front] + [dearest], [point.nll for point in front] + [front[-1].nll]
    axes.step(x, y, where="post", color=_ink.SOFT, linewidth=0.9, zorder=2)
    for method, look in look_of.items():
        ours = [point for point in panel.points if point.method == method and not point.on_front]
        axes.plot(
            [point.seconds for point in ours],
            [point.nll for point in ours],
            look.marker,
            color=look.colour,
            markersize=2.8,
            alpha=0.4,
            zorder=3,
        )
    for point in front:
        look = look_of[point.method]
        axes.plot([point.seconds], [point.nll], look.marker, color=look.colour, markersize=5.5, zorder=4)
        _ink.tip_point(axes, point.seconds, point.nll, _tip(point))
    axes.set_xscale("log")
    _ink.plain_log(axes.xaxis)
    seconds = [point.seconds for point in panel.points]
    axes.set_xlim(min(seconds) / 1.2, max(seconds) * 1.2)
    axes.set_xlabel("seconds of a trial (log scale)")
    _ink.loss_axis(axes, [point.nll for point in panel.points])
    _label_front(axes, front)


def _label_front(axes: Axes, front: Sequence[Point]) -> None:
    """Write batch size and learning rate beside the front's points, from the best on, where there is room."""
    taken: list[tuple[float, float]] = []
    for point in reversed(front):
        x, y = axes.transAxes.inverted().transform(axes.transData.transform((point.seconds, point.nll)))
        if all(abs(y - other) > LABEL_HEIGHT or abs(x - there) > LABEL_WIDTH for there, other in taken):
            taken.append((float(x), float(y)))
            parts = [f"batch {point.batch_size}"] if point.batch_size is not None else []
            parts += [rate_text(point.learning_rate)] if point.learning_rate is not None else []
            right = x > 0.6
            axes.annotate(
                ", ".join(parts),
                (point.seconds, point.nll),
                (-5 if right else 5, 3),
                textcoords="offset points",
                ha="right" if right else "left",
                fontsize=5.5,
                zorder=6,
            )


def _legend(drawing: Figure, numbers: Pareto, look_of: dict[str, Look]) -> None:
    from matplotlib.lines import Line2D

    from welltuned.figures import _ink

    handles = [
        Line2D([], [], linestyle="none", color=look_of[name].colour, marker=look_of[name].marker, label=name)
        for name in numbers.methods
    ]
    handles.append(Line2D([], [], color=_ink.SOFT, linewidth=0.9, label="front"))
    _ink.legend_of(drawing, handles, [str(handle.get_label()) for handle in handles], 4)


def _tip(point: Point) -> str:
    return f"{point.name}: {nats_text(point.nll)} nats in {seconds_text(point.seconds)}"


def caption(numbers: Pareto) -> str:
    """State n, seeds, what the seconds are, and what is left out."""
    points = [point for panel in numbers.panels for point in panel.points]
    front = sum(point.on_front for point in points)
    text = (
        f"{plural(len(points), 'configuration')}, selection trials, {span_text(numbers.seeds, 'seed')} each, without "
        f"an interval; {plural(front, 'large marker')} on the line: no other is as good in both and better in one. "
        "A trial's time is its share of its pack's time by tokens, which hangs on what it was trained together with."
    )
    if numbers.num_diverged:
        text += f" {plural(numbers.num_diverged, 'diverged trial')} left out: ending early is no saving."
    if numbers.num_untimed:
        text += f" {plural(numbers.num_untimed, 'trial')} without a recorded time left out."
    return text + (f" {plural(numbers.num_left_out, 'problem')} left out." if numbers.num_left_out else "")


def alt(numbers: Pareto) -> str:
    """Read out the front, and how many configurations of each method lie behind it."""
    parts: list[str] = []
    for panel in numbers.panels:
        counts = {method: sum(point.method == method for point in panel.points) for method in numbers.methods}
        behind = ", ".join(f"{method} {count}" for method, count in counts.items())
        parts.append(f"{f'{panel.name}: ' if panel.name else ''}configurations: {behind}")
        parts += [f"On the front: {_tip(point)}" for point in panel.front]
    return sentences(parts)


def rows(numbers: Pareto) -> list[dict[str, Any]]:
    """Return a row for each configuration."""
    return [
        {
            "configuration": point.name,
            "method": point.method,
            "problem": panel.name,
            "learning_rate": point.learning_rate,
            "batch_size": point.batch_size,
            "seconds": point.seconds,
            "validation_nll": point.nll,
            "on_front": point.on_front,
        }
        for panel in numbers.panels
        for point in panel.points
    ]


FIGURE = Picture("Loss against time", 90, compute, draw, caption, alt, rows)
