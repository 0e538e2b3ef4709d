"""From a sheet and its columns to a book: runs with a number, diverged runs, rows without, and the two sides."""

import dataclasses
from collections import Counter
from collections.abc import Sequence

from welltuned.analysis.runs import Run
from welltuned.analysis.wording import plural
from welltuned.audit import columns as recognition
from welltuned.audit import diverged, repeats, units
from welltuned.audit.columns import Columns
from welltuned.audit.records import Book, Entry, Request, Sheet, Side, Unscored
from welltuned.audit.rows import Reader, Row, read_row, setting_names
from welltuned.audit.wording import listed
from welltuned.errors import InputError, problem


def book(sheet: Sheet, columns: Columns, request: Request) -> Book:
    """Read every row. Raises InputError that names the rows which hold text where a number belongs."""
    metric = columns.names["metric"][0]
    higher = _direction(metric, request)
    reader = Reader(sheet, columns, setting_names(columns), lower_is_better=not higher)
    rows = [read_row(reader, row, place) for row, place in zip(sheet.rows, sheet.places, strict=True)]
    if reader.wrong:
        raise InputError(reader.problems())
    found = repeats.of_rows(sheet, columns, rows)
    measured, side, unit_notes = units.measured(columns, found.rows, higher)
    scored, unscored, notes = _scored(measured, side)
    if not scored:
        got = f"no number in any of {plural(len(rows), 'row')}"
        raise InputError(problem(f"{sheet.source}, column {metric}", got, "at least one", "choose another column"))
    choosing, judging, more = _sides(scored, side)
    return Book(
        source=sheet.source,
        choosing=choosing,
        judging=judging,
        stated=frozenset(role for role in recognition.NAMES if columns.has(role)),
        used=_used(columns, found.copies),
        notes=(*_copies(found.copies), *unit_notes, *notes, *more),
        doubts=found.doubts,
        unread=found.unread,
        unscored=tuple(unscored),
    )


def _scored(rows: Sequence[Row], side: Side) -> tuple[list[Entry], list[Unscored], list[str]]:
    """Part the rows into runs with a number and rows without; diverged runs get the number they count with."""
    fine = [row for row in rows if row.has_value]
    scored = [_marked(row) for row in fine]
    unvalued = [entry for row in rows if not row.has_value and row.num_diverged for entry in _places(row, fine)]
    counted = diverged.valued(scored, unvalued, side.higher_is_better, side.is_share)
    missing = [row for row in rows if not row.has_value and not row.num_diverged]
    unscored = [Unscored(row.entry.place, row.entry.run.method, _why(row)) for row in missing]
    lost = [entry for entry in unvalued if all(entry.place != one.place for one in counted)]
    unscored += [Unscored(one.place, one.run.method, "diverged, on a problem without any number") for one in lost]
    return [*scored, *counted], unscored, _divergence_notes(rows, counted, side.is_share)


def _marked(row: Row) -> Entry:
    """Mark a single run with a number as diverged where the row says so; a mean over seeds stays what it is."""
    alone = row.num_diverged == 1 and row.entry.run.num_seeds == 1
    return dataclasses.replace(row.entry, run=dataclasses.replace(row.entry.run, diverged=True)) if alone else row.entry


def _places(row: Row, fine: Sequence[Row]) -> list[Entry]:
    run = row.entry.run
    same = [other.entry.run for other in fine if (other.entry.run.method, other.entry.run.problem) == _who(run)]
    finished = {(other.learning_rate, other.batch_size, other.rank) for other in same}
    where = diverged.places(row.rates, row.batches, row.ranks, row.num_diverged, finished)
    return [
        dataclasses.replace(
            row.entry,
            run=dataclasses.replace(run, learning_rate=rate, batch_size=batch, rank=rank, diverged=True, sd=None),
        )
        for rate, batch, rank in where
    ]


def _who(run: Run) -> tuple[object, object]:
    return run.method, run.problem


def _why(row: Row) -> str:
    return f"no number, status '{row.status}'" if row.status else "no number"


def _divergence_notes(rows: Sequence[Row], counted: Sequence[Entry], share: bool) -> list[str]:
    notes: list[str] = []
    spelled = [row.entry.place for row in rows if row.is_nan]
    if spelled:
        notes.append(f"NaN where lower is better is a run that diverged: {listed(spelled)}.")
    if counted:
        with_what = "no item right" if share else "the worst finished value of the same problem, the kindest there is"
        notes.append(f"{plural(len(counted), 'diverged run')} without a number of its own: counted with {with_what}.")
    fine = [row for row in rows if row.has_value]
    means = [row for row in fine if row.num_diverged and not (row.num_diverged == 1 and row.entry.run.num_seeds == 1)]
    if means:
        total = sum(row.num_diverged for row in means)
        text = (
            f"{plural(total, 'diverged run')} in {plural(len(means), 'mean')}: whether the means hold them is not said."
        )
        notes.append(text)
    return notes


def _sides(entries: Sequence[Entry], side: Side) -> tuple[Side, Side, list[str]]:
    """Let validation rows choose and test rows judge where a table has both; else the same rows do both."""
    splits = Counter(entry.run.split for entry in entries)
    if {"validation", "test"} <= set(splits):
        chosen = [entry for entry in entries if entry.run.split == "validation"]
        judged = [_judging(entry) for entry in entries if entry.run.split == "test"]
        rest = len(entries) - len(chosen) - len(judged)
        notes = ["Validation rows choose the configuration, test rows judge it."]
        notes += [f"{plural(rest, 'row')} of other splits: not used."] if rest else []
        return _filled(side, chosen), _filled(side, judged), notes
    if len(splits) > 1:  # splits that are neither: each is a problem of its own
        entries = [_split_as_problem(entry) for entry in entries]
    both = _filled(side, entries)
    return both, both, []


def _filled(side: Side, entries: Sequence[Entry]) -> Side:
    return dataclasses.replace(side, entries=tuple(entries))


def _judging(entry: Entry) -> Entry:
    return dataclasses.replace(entry, run=dataclasses.replace(entry.run, selected=False))


def _split_as_problem(entry: Entry) -> Entry:
    run = entry.run
    return dataclasses.replace(entry, run=dataclasses.replace(run, problem=(*run.problem, ("split", run.split or ""))))


def _direction(metric: str, request: Request) -> bool:
    if request.higher_is_better is not None:
        return request.higher_is_better
    found = recognition.direction(metric)
    if found is None:
        expected = "a metric whose name says which way is better"
        raise InputError(problem("metric", metric, expected, "add --higher-is-better or --lower-is-better"))
    return found


def _used(columns: Columns, copies: Sequence[str]) -> tuple[tuple[str, str], ...]:
    named = [(role, ", ".join(names)) for role, names in columns.names.items() if names]
    given = [(role, f"“{value}” for every row") for role, value in columns.values.items()]
    left = [("not read", ", ".join(columns.unread))] if columns.unread else []
    return (*named, *given, *left, *([("copies, left out", _counted(copies))] if copies else ()))


def _copies(copies: Sequence[str]) -> list[str]:
    """Say which rows were left out because they repeat another."""
    if not copies:
        return []
    return [f"Rows all of whose cells are those of an earlier row are copies, and left out: {_counted(copies)}."]


def _counted(copies: Sequence[str]) -> str:
    return f"{plural(len(copies), 'row')}, {listed(copies)}"
