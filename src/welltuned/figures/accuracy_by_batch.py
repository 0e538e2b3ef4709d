"""Does the batch size matter once the learning rate is tuned? Test accuracy against batch size, a line per method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from welltuned.analysis.wording import percent_text
from welltuned.figures import _by_batch
from welltuned.figures._by_batch import ByBatch, Quantity
from welltuned.figures._picture import Picture
from welltuned.records import Declaration, Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ACCURACY = Quantity(
    axis="test accuracy, %",
    interval=lambda row: row.test_accuracy,
    value=lambda run: run.accuracy,
    scale=100.0,
    text=percent_text,
)


def compute(results: Sequence[Result], declaration: Declaration) -> ByBatch | str:
    """Return test accuracy by batch size, or why there is none."""
    return _by_batch.compute(results, declaration, ACCURACY)


def draw(numbers: ByBatch) -> Figure:
    """Draw test accuracy against batch size."""
    return _by_batch.draw(numbers, ACCURACY)


def caption(numbers: ByBatch) -> str:
    """State n, the interval over seeds, and the standard error over items beside it."""
    readings = [reading for one in numbers.series for reading in one.readings]
    items = sorted({reading.num_items for reading in readings if reading.num_items is not None})
    errors = [reading.item_error for reading in readings if reading.item_error is not None]
    text = _by_batch.seeds_caption(numbers)
    if items and errors:
        count = f"{items[0]:,}" if len(items) == 1 else f"{items[0]:,} to {items[-1]:,}"
        text += f" Test items: {count}; their standard error, up to {100 * max(errors):.1f} points, is not in the bars."
    return text


def alt(numbers: ByBatch) -> str:
    """Read out every line."""
    return _by_batch.alt(numbers, ACCURACY)


def rows(numbers: ByBatch) -> list[dict[str, Any]]:
    """Return a row for each point."""
    return _by_batch.rows(numbers, "accuracy")


FIGURE = Picture("Test accuracy at the tuned learning rate", 10, compute, draw, caption, alt, rows)
