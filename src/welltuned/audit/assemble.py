"""The whole audit: a path and a request to findings. Everything between reading and writing is pure."""

from dataclasses import dataclass
from pathlib import Path

from welltuned.analysis import claims
from welltuned.analysis.flips import Flips, flips
from welltuned.analysis.runs import Table
from welltuned.audit import book as books
from welltuned.audit import columns, sources, studies
from welltuned.audit.conclusions import Conclusion, conclusions
from welltuned.audit.configurations import group
from welltuned.audit.facts import Facts, Finding
from welltuned.audit.findings import findings
from welltuned.audit.records import Book, Request
from welltuned.audit.tuned import Tuned, baseline, tuned
from welltuned.audit.verdict import verdict


@dataclass(frozen=True)
class Audit:
    """What an audit found."""

    book: Book
    baseline: str
    verdict: tuple[str, ...]
    findings: tuple[Finding, ...]
    tuned: tuple[Tuned, ...]
    conclusions: tuple[Conclusion, ...]
    flips: tuple[Flips, ...]  # of every method that shares configurations with the baseline
    claims: tuple[claims.Finding, ...]  # of the literature, every one, whether or not the table can reach it


def audit(path: Path, request: Request | None = None) -> Audit:
    """Audit a table, a folder of PEFT's results, or a study. Raises InputError where it cannot be read."""
    asked = request or Request()
    return of_book(read(path, asked), asked)


def read(path: Path, request: Request) -> Book:
    """Read whatever is at a path into a book."""
    if studies.is_study(path):
        return studies.read(path, request)
    sheet = sources.read(path)
    return books.book(sheet, columns.recognise(sheet, request), request)


def of_book(book: Book, request: Request) -> Audit:
    """Audit a table that was read."""
    rows = tuned(book)
    methods = tuple(dict.fromkeys(row.method for row in rows))
    base = methods[0] if len(methods) == 1 and request.baseline is None else baseline(methods, request.baseline)
    table = _with_reruns(book)
    facts = Facts(book, base, rows, conclusions(book, rows, base), group(book.judging), _flips(table, base))
    found = verdict(facts), findings(facts), rows, facts.conclusions, facts.flips
    return Audit(book, base, *found, claims.ledger(table))


def _with_reruns(book: Book) -> Table:
    """Return what chose, and what judged where that is the same metric: reruns say who is ahead when tuned."""
    table = book.choosing.table
    if book.fresh and book.judging.metric == book.choosing.metric:
        return table.only((*table.runs, *book.judging.table.runs))
    return table


def _flips(table: Table, base: str) -> tuple[Flips, ...]:
    """Compare every method with the baseline at all configurations."""
    others = [method for method in table.methods() if method != base]
    found = [flips(table, method, base) for method in others]
    return tuple(one for one in found if one.configurations)
