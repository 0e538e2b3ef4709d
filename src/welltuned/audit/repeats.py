"""Which rows are repeats: copies are counted once, and rows that may differ in more than the seed are told.

A configuration and a seed stand for one run. The same row twice is a copy; the same seed with another number is a
repeat that no new seed went into (analysis/grid.py counts a seed once), or a row that differs in what was not read.
"""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from welltuned.analysis.runs import Run
from welltuned.analysis.wording import plural
from welltuned.audit import columns as recognition
from welltuned.audit import parsing
from welltuned.audit.columns import Columns
from welltuned.audit.parsing import Cell
from welltuned.audit.records import Sheet
from welltuned.audit.rows import NAMED, Row
from welltuned.audit.wording import listed
from welltuned.errors import InputError, problem

METRIC_NAMES = frozenset(("metric", "metric_name", "measure"))
COMMON = 2  # rows that share a value of a column, on average, for it to be a setting and no outcome; assumed


@dataclass(frozen=True)
class Repeats:
    """The rows without copies, and what is doubtful about those left."""

    rows: tuple[Row, ...]
    copies: tuple[str, ...]  # places of the rows that were left out
    unread: tuple[str, ...]  # columns that were not read and differ among the rows of one configuration and seed
    doubts: tuple[str, ...]


def of_rows(sheet: Sheet, columns: Columns, rows: Sequence[Row]) -> Repeats:
    """Fold copies and look at what is left. Raises InputError where a count of seeds may be a seed."""
    _check_seed_ids(columns, rows)
    left, copies = _folded(sheet, rows)
    groups: defaultdict[Run, list[Row]] = defaultdict(list)
    for row in left:
        if row.num_diverged <= 1:
            groups[_run_of(row)].append(row)
    several = [found for found in groups.values() if len(found) > 1]
    cells = dict(zip(sheet.places, sheet.rows, strict=True))
    unread = tuple(name for name in columns.unread if _is_setting(name, sheet, several, cells))
    _check_metrics(columns.unread, several, cells)
    doubts = [_differing(unread, several, cells, columns)] if unread else _same_seed(groups)
    return Repeats(tuple(left), copies, unread, (*doubts, *_alike(several)))


def _folded(sheet: Sheet, rows: Sequence[Row]) -> tuple[list[Row], tuple[str, ...]]:
    """Leave out rows that repeat all cells of an earlier one; runs without a seed may be alike by chance, and stay."""
    seen: set[tuple[str, ...]] = set()
    left: list[Row] = []
    copies: list[str] = []
    for row, cells in zip(rows, sheet.rows, strict=True):
        run = row.entry.run
        key = tuple(parsing.text(cells.get(name)) for name in sheet.columns)
        if key in seen and (run.seed is not None or run.num_seeds > 1 or run.sd is not None):
            copies.append(row.entry.place)
        else:
            left.append(row)
        seen.add(key)
    return left, tuple(copies)


def _run_of(row: Row) -> Run:
    """Return what two rows of one configuration and seed have in common."""
    return dataclasses.replace(row.entry.run, value=0.0, sd=None, num_seeds=1, num_items=None, diverged=False)


def _is_setting(
    name: str, sheet: Sheet, several: Sequence[Sequence[Row]], cells: Mapping[str, Mapping[str, Cell]]
) -> bool:
    """Say whether a column that was not read tells rows of one configuration and seed apart, as a setting would."""
    if not recognition.may_tell_apart(name) or not _where(name, several, cells):
        return False
    values = {parsing.text(row.get(name)) for row in sheet.rows}
    return COMMON * len(values) <= len(sheet.rows)


def _where(name: str, several: Sequence[Sequence[Row]], cells: Mapping[str, Mapping[str, Cell]]) -> list[Sequence[Row]]:
    return [rows for rows in several if len({parsing.text(cells[row.entry.place].get(name)) for row in rows}) > 1]


def _differing(
    unread: Sequence[str], several: Sequence[Sequence[Row]], cells: Mapping[str, Mapping[str, Cell]], columns: Columns
) -> str:
    """Say in which columns rows that count as repeats differ, and how to have them read."""
    found = [rows for name in unread for rows in _where(name, several, cells)]
    now = columns.names.get("setting", ())
    do = f"where one is a setting, write --column setting={unread[0]}"
    do += f", and so for those read now ({', '.join(now)})" if now else ""
    if not columns.has("seed"):
        do += f"; if one tells seeds apart, --column seed={unread[0]}"
    return (
        f"Rows of one configuration and seed differ in {listed(unread)}, which was not read, and count as repeats "
        f"({_places(found[0])}, for instance); {do}."
    )


def _check_metrics(
    unread: Sequence[str], several: Sequence[Sequence[Row]], cells: Mapping[str, Mapping[str, Cell]]
) -> None:
    """Refuse a column that says which metric a row is in, where rows of one run differ in it."""
    for name in unread:
        differing = _where(name, several, cells) if recognition.normal(name) in METRIC_NAMES else []
        for rows in differing[:1]:
            got = " and ".join(dict.fromkeys(parsing.text(cells[row.entry.place].get(name)) for row in rows))
            do = "keep the rows of one metric, or give each metric a column"
            raise InputError(problem(f"column {name}", f"{got} ({_places(rows)})", "one metric in all rows", do))


def _same_seed(groups: Mapping[Run, Sequence[Row]]) -> list[str]:
    """Tell seeds that a configuration with several of them has more than once; of a single one checks_noise speaks."""
    seeds = Counter(dataclasses.replace(run, seed=None) for run in groups)
    differing = [run for run, rows in groups.items() if len({row.entry.run.value for row in rows}) > 1]
    several = [run for run in differing if run.seed and seeds[dataclasses.replace(run, seed=None)] > 1]
    found = [groups[run] for run in several]
    if not found:
        return []
    text = (
        f"The same configuration and seed has different numbers in {plural(len(found), 'case')} "
        f"({_places(found[0])}, for instance): the seed counts once, with their mean; what differs is not said."
    )
    return [text]


def _alike(several: Sequence[Sequence[Row]]) -> list[str]:
    """Tell rows that are exactly alike and name no seed: copies, or runs that came to the same number."""
    alike = [
        row.entry.place
        for rows in several
        for number, row in enumerate(rows)
        if row.entry.run.seed is None and any(row.entry.run == other.entry.run for other in rows[:number])
    ]
    if not alike:
        return []
    text = (
        f"{plural(len(alike), 'row')} exactly as another and without a seed ({listed(alike)}): counted as repeats. If "
        "they are copies, the noise is larger than it seems."
    )
    return [text]


def _check_seed_ids(columns: Columns, rows: Sequence[Row]) -> None:
    """Refuse a column called "seeds" that differs within a configuration and has no spread: it may name seeds."""
    name = columns.one("num_seeds")
    if name is None or recognition.normal(name) != "seeds" or "num_seeds" in columns.given:
        return
    if any(row.entry.run.sd is not None for row in rows):
        return
    groups: defaultdict[Run, list[Row]] = defaultdict(list)
    for row in rows:
        groups[_run_of(row)].append(row)
    for found in groups.values():
        counts = list(dict.fromkeys(row.entry.run.num_seeds for row in found))
        if len(counts) > 1:
            got = f"{', '.join(map(str, counts[:NAMED]))} for one configuration ({_places(found)})"
            do = f"write --column seed={name} if these are seeds, --column num_seeds={name} if they count seeds"
            raise InputError(problem(f"column {name}", got, "either a seed or how many seeds a row is the mean of", do))


def _places(rows: Sequence[Row]) -> str:
    return listed([row.entry.place for row in rows])
