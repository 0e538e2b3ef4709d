"""What a figure is: numbers first, then ink, with a caption that is written from the numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from welltuned.records import Declaration, Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Picture:
    """A figure plug-in.

    `compute(results, declaration)` returns the numbers (a frozen record), or a string that says why there is nothing to
    draw. `draw`, `caption` and `rows` read nothing but those numbers; `rows` is what the CSV beside the figure holds.
    """

    title: str
    position: int  # in the report, from the top
    compute: Callable[[Sequence[Result], Declaration], Any]
    draw: Callable[[Any], Figure]
    caption: Callable[[Any], str]
    rows: Callable[[Any], list[dict[str, Any]]]

    def style(self) -> AbstractContextManager[None]:
        """Return the context in which the figure must be written to a file, as it was drawn in."""
        from welltuned.figures import _ink

        return _ink.style()
