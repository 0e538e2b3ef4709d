"""In which unit a metric's column is: shares from 0 to 1, per cent, counts of right items, or a number of its own.

Only a share of items, each right or wrong, has the binomial noise of its items, and only the metric's name can say that
it is one: a score from 0 to 10 with a number of items is none.
"""

import dataclasses
from collections.abc import Sequence

from welltuned.audit import columns as recognition
from welltuned.audit.columns import Columns
from welltuned.audit.records import Side
from welltuned.audit.rows import Row
from welltuned.audit.wording import listed
from welltuned.errors import InputError, problem


def measured(columns: Columns, rows: Sequence[Row], higher: bool) -> tuple[list[Row], Side, list[str]]:
    """Return the rows in one unit, that unit as a side without entries, and what must be known of it."""
    metric = columns.names["metric"][0]
    notes: list[str] = []
    share = recognition.is_share(metric)
    if recognition.is_count(metric) and columns.has("num_items"):
        rows, share = _divided(metric, rows), True
        notes.append(f"{metric} counts the items that are right: divided by their number.")
    elif recognition.is_count(metric):
        notes.append(
            f"{metric} counts items, and how many there were is not said: --value num_items=N makes it a share."
        )
    elif columns.has("num_items") and not share:
        what = f"{metric} is not called a share of items, each right or wrong"
        notes.append(f"{what}, so that the number of items tells nothing of its noise; if it is one, call it accuracy.")
    percent = _is_percent(metric, rows, share)
    if share:
        _check_share(metric, rows, 100.0 if percent else 1.0)
    return list(rows), Side((), metric, higher, share, percent), notes


def _is_percent(metric: str, rows: Sequence[Row], share: bool) -> bool:
    """Say whether shares are in per cent. Raises InputError where some cells are and others may not be."""
    fine = [row for row in rows if row.has_value]
    signed = [row for row in fine if row.percent]
    small = [row for row in fine if not row.percent and 0 < row.entry.run.value <= 1]
    large = [row for row in fine if not row.percent and row.entry.run.value > 1] if share else []
    if small and (signed or large):
        few, others = (small, signed or large) if signed or len(small) <= len(large) else (large, small)
        beside = "with a % sign" if signed else f"like {others[0].entry.run.value:g}"
        do = "write all of them in per cent, each with a % sign, or all as shares from 0 to 1"
        got = f"{_named(few)}, beside cells {beside} ({others[0].entry.place})"
        raise InputError(problem(f"column {metric}", got, "one unit", do))
    return share and bool(signed or large)


def _divided(metric: str, rows: Sequence[Row]) -> list[Row]:
    """Divide counts, and their spreads, by the number of items."""
    wrong = [row for row in rows if row.has_value and row.entry.run.value > (row.entry.run.num_items or 0)]
    if wrong:
        expected = "no more items right than there are"
        do = "correct the count, or num_items"
        raise InputError(problem(f"column {metric}", _named(wrong), expected, do))
    return [_share_of(row) for row in rows]


def _share_of(row: Row) -> Row:
    run = row.entry.run
    if run.num_items is None:
        return row
    sd = None if run.sd is None else run.sd / run.num_items
    run = dataclasses.replace(run, value=run.value / run.num_items, sd=sd)
    return dataclasses.replace(row, entry=dataclasses.replace(row.entry, run=run))


def _check_share(metric: str, rows: Sequence[Row], most: float) -> None:
    outside = [row for row in rows if row.has_value and not 0.0 <= row.entry.run.value <= most]
    if outside:
        expected = "shares of items, from 0 to 1 or from 0 to 100 per cent"
        do = "correct it, or choose another column"
        raise InputError(problem(f"column {metric}", _named(outside), expected, do))


def _named(rows: Sequence[Row]) -> str:
    """Name the first rows with their numbers, and how many more there are."""
    return listed([f"{row.entry.run.value:g} in {row.entry.place}" for row in rows])
