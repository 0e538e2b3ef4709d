"""What accuracy_by_batch and loss_by_batch share: a fresh-seed quantity at tuned learning rates against batch size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from welltuned.analysis.cells import order
from welltuned.analysis.interval import Interval
from welltuned.analysis.summary import FreshRun, SummaryRow, summarise
from welltuned.analysis.wording import Key, label, plural, rate_text
from welltuned.figures._picture import sentences, span_text
from welltuned.records import Declaration, Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure


LOWEST_END = 0.25  # of the lowest seed: a t interval's end below it leaves the panel, as one below 0 must; assumed


@dataclass(frozen=True)
class Reading:
    """One cell: the interval over its fresh seeds and the seeds' own values."""

    batch_size: int
    learning_rate: float
    interval: Interval
    values: tuple[float, ...]
    item_error: float | None
    num_items: int | None


@dataclass(frozen=True)
class Series:
    """One line: a method, or one of its variants where the study has further axes."""

    name: str
    method: str
    readings: tuple[Reading, ...]


@dataclass(frozen=True)
class ByBatch:
    """The numbers of the figure; cells without a fresh-seed value are counted and not drawn."""

    series: tuple[Series, ...]
    batches: tuple[int, ...]
    num_missing: int
    num_diverged: int


@dataclass(frozen=True)
class Quantity:
    """What is read of each cell, and how it is written."""

    axis: str
    interval: Callable[[SummaryRow], Interval | None]
    value: Callable[[FreshRun], float | None]
    scale: float
    text: Callable[[float | None], str]
    is_loss: bool = False


def compute(results: Sequence[Result], declaration: Declaration, quantity: Quantity) -> ByBatch | str:
    """Return the numbers, or why there are none."""
    rows = summarise(results, declaration.cell)
    batches = tuple(sorted({row.batch_size for row in rows}))
    if len(batches) < 2:
        return "The study has one batch size." if batches else "No trial has ended yet."
    members: dict[Key, list[SummaryRow]] = {}
    for row in rows:
        if quantity.interval(row) is not None:
            members.setdefault(_series_key(row.key), []).append(row)
    if not members:
        return f"{rows[0].reason[:1].upper()}{rows[0].reason[1:]}."
    series = tuple(_series(key, members[key], quantity) for key in sorted(members, key=order))
    drawn = [row for found in members.values() for row in found]
    diverged = sum(run.diverged for row in drawn for run in row.fresh)
    return ByBatch(series, batches, len(rows) - len(drawn), diverged)


def _series_key(key: Key) -> Key:
    return tuple(part for part in key if part[0] != "batch_size")


def _series(key: Key, rows: Sequence[SummaryRow], quantity: Quantity) -> Series:
    readings: list[Reading] = []
    for row in sorted(rows, key=lambda row: row.batch_size):
        interval = quantity.interval(row)
        if interval is None or row.selected_rate is None:
            continue
        values = tuple(value for run in row.fresh if (value := quantity.value(run)) is not None)
        readings.append(Reading(row.batch_size, row.selected_rate, interval, values, row.item_error, row.num_items))
    return Series(label(key) if key else rows[0].method, rows[0].method, tuple(readings))


def draw(numbers: ByBatch, quantity: Quantity) -> Figure:
    """Draw the lines with their intervals, the single seeds as faint dots."""
    from welltuned.figures import _ink

    with _ink.style():
        drawing = _ink.column_figure(2.35)
        axes = drawing.add_subplot()
        _ink.grid(axes)
        look_of = _ink.looks([(one.method, one.name) for one in numbers.series])
        for number, one in enumerate(numbers.series):
            look, aside = look_of[one.name], _ink.dodge(number, len(numbers.series))
            x = [reading.batch_size * aside for reading in one.readings]
            y = [quantity.scale * reading.interval.mean for reading in one.readings]
            axes.plot(x, y, look.dash, color=look.colour, marker=look.marker, label=one.name, zorder=4)
            for here, there, reading in zip(x, y, one.readings, strict=True):
                seeds = [quantity.scale * value for value in reading.values]
                axes.plot([here * 0.97] * len(seeds), seeds, ".", color=look.colour, alpha=0.55, markersize=3, zorder=3)
                low, high = reading.interval.low, reading.interval.high
                if low is not None and high is not None:
                    ends = [quantity.scale * low, quantity.scale * high]
                    axes.plot([here, here], ends, "-", color=look.colour, linewidth=0.9, alpha=0.85, zorder=3)
                    axes.plot([here, here], ends, "_", color=look.colour, markersize=4.5, zorder=3)
                _ink.tip_point(axes, here, there, _tip(one, reading, quantity))
        _ink.batch_axis(axes, numbers.batches)
        if quantity.is_loss:
            _ink.loss_axis(axes, _drawn(numbers), quantity.axis)
        else:
            axes.set_ylabel(quantity.axis)
        _ink.legend(drawing, axes)
        return drawing


def _drawn(numbers: ByBatch) -> list[float]:
    """Return the seeds' values and the ends of their intervals, without an end so low that it would press all flat."""
    readings = [reading for one in numbers.series for reading in one.readings]
    values = [value for reading in readings for value in reading.values]
    ends = [end for reading in readings for end in (reading.interval.low, reading.interval.high) if end is not None]
    return [*values, *(end for end in ends if end >= LOWEST_END * min(values))]


def _tip(one: Series, reading: Reading, quantity: Quantity) -> str:
    seeds = plural(reading.interval.num_seeds, "fresh seed")
    head = f"{one.name}, batch {reading.batch_size}, learning rate {rate_text(reading.learning_rate)}"
    return f"{head}: {_value(reading, quantity)}, {seeds}"


def _value(reading: Reading, quantity: Quantity) -> str:
    low, high = reading.interval.low, reading.interval.high
    span = "" if low is None else f" ({quantity.text(low)} to {quantity.text(high)})"
    return quantity.text(reading.interval.mean) + span


def alt(numbers: ByBatch, quantity: Quantity) -> str:
    """Read out every line's points."""
    return sentences(
        f"{one.name}: "
        + ", ".join(f"{_value(reading, quantity)} at batch size {reading.batch_size}" for reading in one.readings)
        for one in numbers.series
    )


def seeds_caption(numbers: ByBatch) -> str:
    """State n, the interval and what is missing."""
    counts = [reading.interval.num_seeds for one in numbers.series for reading in one.readings]
    seeds = span_text(counts, "fresh seed")
    text = (
        "Each point is the learning rate that validation chose, rerun on "
        f"{seeds} that selection never saw: mean, dots for the seeds, "
        + ("no interval with one seed." if max(counts) == 1 else "bars for the 95 % t interval over seeds.")
    )
    if numbers.num_diverged:
        text += f" {plural(numbers.num_diverged, 'diverged rerun')} counted in."
    if numbers.num_missing:
        text += f" {plural(numbers.num_missing, 'cell')} without a rerun left out."
    return text


def rows(numbers: ByBatch, name: str) -> list[dict[str, Any]]:
    """Return a row for each point, the quantity's columns called after `name`."""
    return [
        {
            "series": one.name,
            "method": one.method,
            "batch_size": reading.batch_size,
            "learning_rate": reading.learning_rate,
            f"{name}_mean": reading.interval.mean,
            f"{name}_low": reading.interval.low,
            f"{name}_high": reading.interval.high,
            f"{name}_sd": reading.interval.sd,
            "num_seeds": reading.interval.num_seeds,
            "num_items": reading.num_items,
            "item_error": reading.item_error,
        }
        for one in numbers.series
        for reading in one.readings
    ]
