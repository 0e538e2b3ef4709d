"""The same question as accuracy_by_batch on the smoother scale: fresh-seed validation NLL against batch size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from welltuned.analysis.wording import nats_text
from welltuned.figures import _by_batch
from welltuned.figures._by_batch import ByBatch, Quantity
from welltuned.figures._picture import Picture
from welltuned.records import Declaration, Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOSS = Quantity(
    axis="validation NLL, nats",
    interval=lambda row: row.fresh_nll,
    value=lambda run: run.nll,
    scale=1.0,
    text=nats_text,
    is_loss=True,
)


def compute(results: Sequence[Result], declaration: Declaration) -> ByBatch | str:
    """Return fresh-seed validation NLL by batch size, or why there is none."""
    return _by_batch.compute(results, declaration, LOSS)


def draw(numbers: ByBatch) -> Figure:
    """Draw validation NLL against batch size."""
    return _by_batch.draw(numbers, LOSS)


def caption(numbers: ByBatch) -> str:
    """State n and the interval."""
    return _by_batch.seeds_caption(numbers) + " Lower is better."


def alt(numbers: ByBatch) -> str:
    """Read out every line."""
    return _by_batch.alt(numbers, LOSS)


def rows(numbers: ByBatch) -> list[dict[str, Any]]:
    """Return a row for each point."""
    return _by_batch.rows(numbers, "validation_nll")


FIGURE = Picture("Validation loss at the tuned learning rate", 11, compute, draw, caption, alt, rows)
