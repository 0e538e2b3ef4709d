"""`welltuned audit`: what a table of results supports, whoever made it; trains nothing, reads nothing but the table."""

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from welltuned.cli._options import Json
from welltuned.errors import InputError, problem

if TYPE_CHECKING:
    from rich.console import Console

    from welltuned.audit import Audit
    from welltuned.audit.tables import TextTable

SHOWN = 12  # rows, and conclusions, on the screen before "and so many more"; assumed


def command(
    table: Annotated[
        Path,
        typer.Argument(help="A table (CSV, TSV, JSON, Parquet), a folder of PEFT's results, or a study's folder."),
    ],
    column: Annotated[
        list[str] | None,
        typer.Option("--column", metavar="ROLE=NAME", help="Which column is meant: learning_rate=eta. Repeatable."),
    ] = None,
    value: Annotated[
        list[str] | None,
        typer.Option("--value", metavar="ROLE=VALUE", help="What every row shares: num_items=1319. Repeatable."),
    ] = None,
    baseline: Annotated[
        str | None, typer.Option("--baseline", help="The method the others are compared with. Default: lora.")
    ] = None,
    higher_is_better: Annotated[
        bool | None,
        typer.Option("--higher-is-better/--lower-is-better", help="Which way the metric is better. Default: its name."),
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option("--to", help="Folder to write the page (HTML, Markdown) and the findings (JSON, CSV) into."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what was tuned for whom in a table of results, and which of its conclusions survive."""
    from rich.console import Console

    from welltuned.audit import Request, audit, files
    from welltuned.cli._text import print_json

    columns: dict[str, tuple[str, ...]] = {}
    for role, name in _pairs("--column", column):
        columns[role] = (*columns.get(role, ()), name)
    request = Request(columns, dict(_pairs("--value", value)), baseline, higher_is_better)
    found = audit(table, request)
    page = files.write(found, to) if to is not None else None
    if as_json:
        print_json(files.as_json(found))
        return
    show(Console(), found)
    print(f"look at {page}" if page else "every conclusion and claim, as files: add --to FOLDER")


def show(console: "Console", audit: "Audit") -> None:
    """Print the audit: the verdict, then the findings, then the tables."""
    from welltuned.audit.tables import brief_sheet, claims_line, conclusion_lines, flips_sheet

    side = audit.book.judging
    which = "higher" if side.higher_is_better else "lower"
    for sentence in audit.verdict:
        _say(console, sentence, style="bold")
    _say(console, f"metric: {side.metric}, {which} is better; baseline: {audit.baseline}; {audit.book.source}")
    for serious in (True, False):
        for finding in audit.findings:
            if finding.serious == serious:
                _say(console, f"{'finding' if serious else 'note'}: {finding.text}")
    _print(console, brief_sheet(audit))
    lines = conclusion_lines(audit)
    for line in lines[:SHOWN]:
        _say(console, line)
    if len(lines) > SHOWN:
        print(f"... and {len(lines) - SHOWN} more conclusions")
    shared = flips_sheet(audit)
    if shared.rows:
        _print(console, shared)
    _say(console, claims_line(audit))


def _say(console: "Console", text: str, style: str | None = None) -> None:
    """Print a sentence; the lines after its first are set in, so that the next sentence is seen."""
    lines = textwrap.wrap(text, console.width, subsequent_indent="  ", break_on_hyphens=False)
    console.print("\n".join(lines), style=style, markup=False, highlight=False)


def _print(console: "Console", sheet: "TextTable") -> None:
    """Print a table; a narrow screen breaks headings between words and long names anywhere, and never a number."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    rows = sheet.rows[:SHOWN]
    natural = sum(max(map(len, column)) + 2 for column in zip(sheet.header, *rows, strict=True))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for number, (name, *cells) in enumerate(zip(sheet.header, *rows, strict=True)):
        is_number = number >= sheet.num_text
        broken = textwrap.fill(name, max(map(len, (*name.split(), *cells)))) if is_number else name
        heading = broken if natural > console.width else name
        justify = "right" if is_number else "left"
        table.add_column(Text(heading), justify=justify, overflow="fold", no_wrap=is_number)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)
    if len(sheet.rows) > SHOWN:
        print(f"... and {len(sheet.rows) - SHOWN} more rows")


def _pairs(flag: str, given: list[str] | None) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for text in given or []:
        role, equals, name = text.partition("=")
        if not (role and equals and name):
            raise InputError(problem(flag, text, "ROLE=NAME", f"write {flag} learning_rate=eta, for instance"))
        pairs.append((role, name))
    return pairs
