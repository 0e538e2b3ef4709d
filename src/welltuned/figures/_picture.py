"""What a figure is: numbers first, then ink, with a caption and a text in its place, both written from the numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from welltuned.analysis.wording import plural

if TYPE_CHECKING:
    from matplotlib.figure import Figure


READ_OUT = 24  # sentences of a text in a figure's place; assumed: who wants more reads the table


@dataclass(frozen=True)
class Picture:
    """A figure plug-in.

    A figure beside the report (its file's name starts with an underscore) computes from records of its own.

    `compute(results, declaration)` returns the numbers (a frozen record), or a string that says why there is nothing to
    draw. `draw`, `caption`, `alt` and `rows` read nothing but those numbers. `caption` states n, seeds, interval and
    what was left out; `alt` is read to who cannot see the figure and states its numbers; `rows` is what the CSV file
    beside the figure holds, and the table below it.
    """

    title: str
    position: int  # in the report, from the top
    compute: Callable[..., Any]
    draw: Callable[[Any], Figure]
    caption: Callable[[Any], str]
    alt: Callable[[Any], str]
    rows: Callable[[Any], list[dict[str, Any]]]

    def style(self) -> AbstractContextManager[None]:
        """Return the context in which the figure must be written to a file, as it was drawn in."""
        from welltuned.figures import _ink

        return _ink.style()


def sentences(parts: Iterable[str]) -> str:
    """Join what is read out, a sentence each; past `READ_OUT` of them, say how many more the table holds.

    >>> sentences(["lora: 1.0 at batch size 4", "pissa: 2.0 at batch size 4"])
    'lora: 1.0 at batch size 4. pissa: 2.0 at batch size 4.'
    """
    given = list(parts)
    more = len(given) - READ_OUT
    text = " ".join(f"{part}." for part in given[:READ_OUT])
    return f"{text} And {more} more, in the table below." if more > 0 else text


def span_text(counts: Iterable[int], noun: str) -> str:
    """Write how many there are of something that may differ from place to place.

    >>> span_text([3, 3], "seed"), span_text([1, 3, 2], "seed")
    ('3 seeds', '1 to 3 seeds')
    """
    distinct = sorted(set(counts))
    return plural(distinct[0], noun) if len(distinct) == 1 else f"{distinct[0]:,} to {plural(distinct[-1], noun)}"
