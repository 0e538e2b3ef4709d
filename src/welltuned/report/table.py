"""A table as the page, a paper and a program read it: HTML, LaTeX (report/latex.py) and CSV from one record."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from welltuned.analysis.wording import DASH, rate_text

SLIM = 3  # columns that fit on a phone
MOST_ROWS = 200  # of a figure's numbers on the page; the CSV file has all. Assumed: nobody reads more


@dataclass(frozen=True)
class Table:
    """A table of text; the first `num_text` columns are names, the rest are numbers and set to the right.

    What follows a line break within a cell is set small. `records` are the same rows as bare numbers, for the CSV file:
    a text rounds, they do not.
    """

    name: str  # of its files
    title: str
    note: str  # what the columns mean, n, seeds, interval
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    records: tuple[Mapping[str, Any], ...]
    num_text: int = 1
    strong: frozenset[int] = frozenset()  # rows to stress
    folded: str = ""  # where not empty, the page shows the table when asked to, behind these words


def html(table: Table) -> str:
    """Return the table as HTML with every text escaped, in a frame that scrolls by itself where it is wide."""
    head = "".join(f"<th scope=col{_kind(table, n)}>{escaped(text)}</th>" for n, text in enumerate(table.header))
    body = "".join(_row(table, number, row) for number, row in enumerate(table.rows))
    title = escaped(table.title)
    return (
        f'<div class=scroll role=region tabindex=0 aria-label="{title}"><table{_width(table)}>'
        f"<caption class=unseen>{title}</caption><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>"
    )


def _width(table: Table) -> str:
    return " class=slim" if len(table.header) <= SLIM else ""


def _row(table: Table, number: int, row: Sequence[str]) -> str:
    first = f"<th scope=row>{_cell(row[0])}</th>"
    cells = "".join(f"<td{_kind(table, n)}>{_cell(text)}</td>" for n, text in enumerate(row) if n > 0)
    return f"<tr{' class=strong' if number in table.strong else ''}>{first}{cells}</tr>\n"


def escaped(text: str) -> str:
    """Escape a text for HTML, in quotes or not, and keep numbers on one line with their unit."""
    return escape(text).replace(" %", "&nbsp;%")


def _cell(text: str) -> str:
    first, _, rest = text.partition("\n")
    return escaped(first) + (f"<small>{escaped(rest)}</small>" if rest else "")


def _kind(table: Table, column: int) -> str:
    return "" if column < table.num_text else " class=number"


def of_numbers(name: str, title: str, records: Sequence[Mapping[str, Any]]) -> Table:
    """Return the numbers of a figure as a table: the first `MOST_ROWS` of them, columns that say nothing left out."""
    names = [key for key in (records[0] if records else {}) if any(record[key] is not None for record in records)]
    num_text = next((n for n, key in enumerate(names) if not isinstance(records[0][key], str)), len(names))
    shown = records[:MOST_ROWS]
    return Table(
        name=name,
        title=title,
        note="" if len(shown) == len(records) else f"The first {MOST_ROWS} of {len(records):,} rows.",
        header=tuple(key.replace("_", " ") for key in names),
        rows=tuple(tuple(value_text(key, record[key]) for key in names) for record in shown),
        records=tuple(records),
        num_text=max(1, num_text),
    )


def value_text(name: str, value: Any) -> str:
    """Write a number of any kind with four digits; a missing one is a dash.

    >>> value_text("accuracy", 0.123456), value_text("learning_rate", 3e-4), value_text("reason", None) == DASH
    ('0.1235', '3e-4', True)
    """
    if value is None or value == "":
        return DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        if "rate" in name.split("_") or name.startswith("band_"):
            return rate_text(value)
        whole = abs(value) >= 1000 or value == 0 or (value.is_integer() and math.isfinite(value))
        return f"{value:,.0f}" if whole else f"{value:.4g}"
    if isinstance(value, int):
        return f"{value:,}"
    return ", ".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
