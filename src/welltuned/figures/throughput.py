"""What did it cost? Tokens per second and seconds per trial of every cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from welltuned.analysis.throughput import SpeedRow, speeds
from welltuned.analysis.wording import count_text, label, plural, seconds_text
from welltuned.figures._picture import Picture, sentences
from welltuned.records import Declaration, Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Throughput:
    """The numbers of the figure; cells without a recorded time are counted and not drawn."""

    rows: tuple[SpeedRow, ...]
    names: tuple[str, ...]  # of each row's series
    batches: tuple[int, ...]
    num_trials: int
    num_untimed: int


def compute(results: Sequence[Result], declaration: Declaration) -> Throughput | str:
    """Return every cell's speed, or why there is none."""
    found = speeds(results, declaration.cell)
    timed = tuple(row for row in found if row.tokens_per_second is not None)
    if not timed:
        return "No trial has a recorded time."
    names = tuple(label(tuple(part for part in row.key if part[0] != "batch_size")) for row in timed)
    names = tuple(row.method if name == "all" else name for row, name in zip(timed, names, strict=True))
    batches = tuple(sorted({row.batch_size for row in timed}))
    return Throughput(timed, names, batches, sum(row.num_trials for row in timed), len(found) - len(timed))


def draw(numbers: Throughput) -> Figure:
    """Draw grouped bars, speed on the left and time on the right."""
    from welltuned.figures import _ink

    with _ink.style():
        drawing = _ink.page_figure(2.0)
        left, right = drawing.subplots(1, 2)
        _bars(left, numbers, [(row.tokens_per_second or 0.0) / 1e3 for row in numbers.rows], "thousand tokens / s")
        _bars(right, numbers, [row.seconds_per_trial or 0.0 for row in numbers.rows], "seconds per trial")
        _ink.legend(drawing, left)
        return drawing


def _bars(axes: Axes, numbers: Throughput, heights: Sequence[float], quantity: str) -> None:
    from welltuned.figures import _ink

    look_of = _ink.looks([(row.method, name) for row, name in zip(numbers.rows, numbers.names, strict=True)])
    names = list(dict.fromkeys(numbers.names))
    width = 0.8 / len(names)
    hatches = {"-": "", "--": "//", ":": "..", "-.": "xx"}
    for name in names:
        look = look_of[name]
        members = [
            (row, height) for row, own, height in zip(numbers.rows, numbers.names, heights, strict=True) if own == name
        ]
        x = [
            numbers.batches.index(row.batch_size) + width * (names.index(name) - (len(names) - 1) / 2)
            for row, _ in members
        ]
        bars = axes.bar(
            x,
            [height for _, height in members],
            width * 0.92,
            color=look.colour,
            label=name,
            hatch=hatches[look.dash],
            edgecolor=_ink.PAPER,
            linewidth=0,
        )
        for patch, (row, _) in zip(bars, members, strict=True):
            _ink.tip(patch, _tip(row))
    _ink.grid(axes)
    axes.set_xticks(range(len(numbers.batches)), [str(batch) for batch in numbers.batches])
    axes.tick_params(axis="x", length=0)
    axes.set_xlabel("batch size")
    axes.set_ylabel(quantity)


def _tip(row: SpeedRow) -> str:
    speed = f"{count_text(row.tokens_per_second)} tokens/s, {seconds_text(row.seconds_per_trial)} per trial"
    return f"{row.label}: {speed}, {plural(row.num_trials, 'trial')}"


def caption(numbers: Throughput) -> str:
    """State what is counted."""
    pack = sum(row.mean_pack * row.num_trials for row in numbers.rows) / numbers.num_trials
    text = (
        f"{plural(numbers.num_trials, 'trial')}, diverged ones included; {pack:.1f} trained together on average, and a "
        "trial's time is its share of its pack's time by tokens. Unpadded tokens, without the test split's grading."
    )
    return text + (
        f" {plural(numbers.num_untimed, 'cell')} without a recorded time left out." if numbers.num_untimed else ""
    )


def alt(numbers: Throughput) -> str:
    """Read out every bar."""
    return sentences(_tip(row) for row in numbers.rows)


def rows(numbers: Throughput) -> list[dict[str, Any]]:
    """Return a row for each cell."""
    return [
        {
            "series": name,
            "method": row.method,
            "batch_size": row.batch_size,
            "num_trials": row.num_trials,
            "num_tokens": row.num_tokens,
            "seconds": row.seconds,
            "tokens_per_second": row.tokens_per_second,
            "seconds_per_trial": row.seconds_per_trial,
            "mean_pack": row.mean_pack,
        }
        for row, name in zip(numbers.rows, numbers.names, strict=True)
    ]


FIGURE = Picture("Throughput", 100, compute, draw, caption, alt, rows)
