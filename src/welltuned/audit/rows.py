"""A row of a sheet: every cell is read by its role, and every cell that cannot be read is named by its row."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from welltuned.analysis.runs import Run
from welltuned.audit import columns as recognition
from welltuned.audit import diverged, parsing
from welltuned.audit.columns import Columns
from welltuned.audit.parsing import Cell
from welltuned.audit.records import Entry, Sheet

LARGEST = 1e50  # a larger number is as good as infinite: the run diverged. Assumed; its square must be a number
SPREAD = "a number >= 0 and not infinite"
NAMED = 5  # rows named in one message before "and so many more"; assumed
KNOBS = {"learning_rate": "a number > 0", "batch_size": "a whole number >= 1", "rank": "a whole number >= 0"}
COUNTS = {"num_seeds": "a whole number >= 1", "num_items": "a whole number >= 1"}


@dataclass
class Reader:
    """The rows as they are read, with what is wrong in them by message and row."""

    sheet: Sheet
    columns: Columns
    settings: tuple[str, ...]
    wrong: dict[tuple[str, str], list[str]] = field(default_factory=dict[tuple[str, str], list[str]])
    lower_is_better: bool = False  # so that a spelled NaN is a loss that diverged

    def cell(self, role: str, row: Mapping[str, Cell]) -> Cell:
        """Return what a row says for a role: its column's cell, else the value of all rows, else None."""
        name = self.columns.one(role)
        return row.get(name) if name is not None else self.columns.values.get(role)

    def complain(self, role: str, cell: Cell, expected: str, place: str) -> None:
        """Note that a cell cannot be read."""
        name = self.columns.one(role) or role
        if parsing.has_decimal_comma(cell):
            expected = f"{expected}, with a decimal point and without commas ('61.2', not '61,2')"
        self.wrong.setdefault((name, expected), []).append(f"{cell!r} in {place}")

    def problems(self) -> list[str]:
        """Return a line for each column and kind of fault, with its first cells and where they stand."""
        return [_fault(name, expected, found) for (name, expected), found in self.wrong.items()]


@dataclass(frozen=True)
class Row:
    """One row, read: its entry without a value where it has none, and how many diverged runs it stands for."""

    entry: Entry
    has_value: bool
    percent: bool  # a % sign stood in the metric's cell
    is_nan: bool  # the metric's cell spelled NaN, and lower is better
    num_diverged: int
    status: str
    rates: tuple[float, ...]
    batches: tuple[int, ...]
    ranks: tuple[int, ...]


def read_row(reader: Reader, row: Mapping[str, Cell], place: str) -> Row:
    """Read one row; what cannot be read is noted in the reader."""
    value, sd, percent = _value(reader, row, place)
    is_nan = reader.lower_is_better and parsing.is_nan(reader.cell("metric", row))
    status = parsing.text(reader.cell("status", row))
    count = parsing.flag(reader.cell("diverged", row))
    if count is None:
        reader.complain("diverged", reader.cell("diverged", row), "true, false or a count", place)
    has_value = value is not None and abs(value) <= LARGEST
    count = count or int(diverged.is_diverged(status) or is_nan or (value is not None and not has_value))
    lists = {role: _knob(reader, role, row, place, count > 0) for role in KNOBS}
    rates, batches, ranks = (lists[role] for role in KNOBS)
    run = Run(
        method=_joined(reader, row, place),
        value=value if value is not None and has_value else 0.0,
        learning_rate=rates[0] if len(rates) == 1 else None,
        batch_size=int(batches[0]) if len(batches) == 1 else None,
        rank=int(ranks[0]) if len(ranks) == 1 else None,
        seed=parsing.text(reader.cell("seed", row)) or None,
        sd=sd,
        num_seeds=_count(reader, "num_seeds", row, place) or 1,
        num_items=_count(reader, "num_items", row, place),
        split=_split(reader, row),
        problem=_problem(reader, row),
        setting=tuple((name, parsing.text(row.get(name))) for name in reader.settings),
    )
    whole = [tuple(int(number) for number in numbers) for numbers in (batches, ranks)]
    return Row(Entry(run, place), has_value, percent, is_nan, count, status, rates, whole[0], whole[1])


def _value(reader: Reader, row: Mapping[str, Cell], place: str) -> tuple[float | None, float | None, bool]:
    """Return the row's metric and its standard deviation, each None where it is missing, and whether it is in %."""
    cell, spread = reader.cell("metric", row), reader.cell("sd", row)
    reading = None if parsing.is_missing(cell) else parsing.number(cell)
    if reading is None and not parsing.is_missing(cell):
        reader.complain("metric", cell, "a number", place)
    beside = None if parsing.is_missing(spread) else parsing.number(spread)
    if (beside is None and not parsing.is_missing(spread)) or (beside is not None and not _is_spread(beside.value)):
        reader.complain("sd", spread, SPREAD, place)
    if reading is not None and reading.sd is not None and beside is not None:
        reader.complain("sd", spread, "nothing, since the metric's cell has a ± of its own", place)
    if reading is None:
        return None, beside.value if beside else None, False
    if beside is not None and beside.percent and not reading.percent and abs(reading.value) <= 1:
        reader.complain("sd", spread, "a number in the metric's unit, which is not per cent here", place)
    if reading.sd is not None and not _is_spread(reading.sd):
        reader.complain("metric", cell, f"{SPREAD} behind the ±", place)
    return reading.value, beside.value if beside else reading.sd, reading.percent


def _is_spread(sd: float) -> bool:
    return 0 <= sd <= LARGEST


def _knob(reader: Reader, role: str, row: Mapping[str, Cell], place: str, several: bool) -> tuple[Any, ...]:
    """Return a knob's values in a row: one, none, or several where the row stands for a set of diverged runs."""
    cell = reader.cell(role, row)
    if parsing.is_missing(cell):
        return ()
    found = parsing.numbers(cell) or ()
    least, whole = {"learning_rate": (0.0, False), "batch_size": (1, True), "rank": (0, True)}[role]
    fine = all(math.isfinite(n) and n >= least and (n == int(n) if whole else n > 0) for n in found)
    if not found or not fine or (len(found) > 1 and not several):
        reader.complain(role, cell, KNOBS[role], place)
        return ()
    return tuple(int(n) if whole else n for n in found)


def _count(reader: Reader, role: str, row: Mapping[str, Cell], place: str) -> int | None:
    cell = reader.cell(role, row)
    if parsing.is_missing(cell):
        return None
    reading = parsing.number(cell)
    if reading is None or not math.isfinite(reading.value) or reading.value < 1 or reading.value % 1:
        reader.complain(role, cell, COUNTS[role], place)
        return None
    return int(reading.value)


def _joined(reader: Reader, row: Mapping[str, Cell], place: str) -> str:
    """Return the method's name: its columns' texts; of a column of true and false, its name where it is true."""
    parts: list[str] = []
    names = reader.columns.names.get("method", ())
    for name in names:
        cell = row.get(name)
        text = parsing.text(cell)
        truth = text.casefold()
        parts += [name] if truth in parsing.TRUE else [text] if text and truth not in parsing.FALSE else []
    found = "+".join(parts) or reader.columns.values.get("method", "")
    if not found:
        got = next((cell for name in names if (cell := row.get(name))), None)
        expected = "a name" if got is None else "a name that does not mean 'nothing' ('no adapter', for instance)"
        reader.complain("method", got, expected, place)
    return found


def _problem(reader: Reader, row: Mapping[str, Cell]) -> tuple[tuple[str, str], ...]:
    named = tuple((name, parsing.text(row.get(name))) for name in reader.columns.names.get("problem", ()))
    given = reader.columns.values.get("problem")
    return (*named, *((("problem", given),) if given else ()))


def _split(reader: Reader, row: Mapping[str, Cell]) -> str | None:
    text = parsing.text(reader.cell("split", row))
    return (recognition.split_of(text) or text) if text else recognition.split_of(reader.columns.names["metric"][0])


def setting_names(columns: Columns) -> tuple[str, ...]:
    """List the columns of other settings, but for those that are part of the method's name."""
    return tuple(name for name in columns.names.get("setting", ()) if name not in columns.names.get("method", ()))


def _fault(name: str, expected: str, found: Sequence[str]) -> str:
    rest = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
    got = ", ".join(found[:NAMED]) + rest
    return f"column {name}: got {got}, expected {expected} in every row; correct the table or choose another column"
