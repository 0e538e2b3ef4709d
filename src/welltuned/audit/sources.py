"""From a path to a sheet of cells: CSV, TSV, JSON, JSON lines, Parquet, PEFT's result files. Nothing is interpreted.

A file may end in .gz. Studies of our own are read by `studies.py`, since they know more than a sheet can hold.
"""

import csv
import decimal
import gzip
import io
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from welltuned.audit import peft_results
from welltuned.audit.parsing import Cell
from welltuned.audit.records import Sheet
from welltuned.errors import InputError, problem

KINDS = ".csv, .tsv, .json, .jsonl or .parquet (also with .gz), or a folder of PEFT's result files"


def read(path: Path) -> Sheet:
    """Read a table. Raises InputError where there is none, where it is empty, or where its rows do not fit."""
    if path.is_dir():
        return peft_results.read_folder(path)
    if not path.is_file():
        do = "check the path"
        raise InputError(problem("table", str(path), f"a file ({KINDS}) or a study's folder", do))
    suffix = path.suffix.lower()
    kind = path.with_suffix("").suffix.lower() if suffix == ".gz" else suffix
    if kind in (".csv", ".tsv"):
        sheet = _delimited(path, _text(path))
    elif kind == ".parquet":
        sheet = _parquet(path)
    elif kind in (".json", ".jsonl"):
        sheet = _json(path, _text(path), kind == ".jsonl")
    else:
        raise InputError(problem("table", path.name, f"a file that ends in {KINDS}", "rename it, or save it as CSV"))
    if not sheet.rows:
        raise InputError(problem(str(path), "an empty table", "at least one row", "check that it is the right file"))
    return sheet


def _text(path: Path) -> str:
    data = path.read_bytes()
    try:
        return (gzip.decompress(data) if path.suffix.lower() == ".gz" else data).decode("utf-8-sig")
    except (UnicodeDecodeError, gzip.BadGzipFile, EOFError) as error:
        raise InputError(problem(str(path), str(error), "text in UTF-8", "save the table again as UTF-8")) from error


def _delimited(path: Path, text: str) -> Sheet:
    """Read CSV or TSV; the header says which sign separates, so that a semicolon CSV is read, too.

    Signs in quotes separate nothing. Excel writes a line `sep=;` first, which says it outright.
    """
    head = text.partition("\n")[0].strip()
    bare = re.sub(r'"[^"]*"', "", head)
    separator = max("\t;,", key=lambda sign: (bare.count(sign), sign == ","))
    lines = _numbered(path, text, separator)
    stated = re.fullmatch(r"sep=([;,\t])", head, re.IGNORECASE)
    if stated:
        lines = _numbered(path, text, stated.group(1))
        next(lines)
    header = [name.strip() for name in next(lines, (0, []))[1]]
    repeated = [name for name, count in Counter(header).items() if count > 1]
    if repeated:
        raise InputError(problem(str(path), f"column '{repeated[0]}' twice", "every name once", "rename one of them"))
    rows: list[dict[str, Cell]] = []
    places: list[str] = []
    wrong: list[str] = []
    for number, row in lines:
        if any(cell.strip() for cell in row):
            if len(row) != len(header):
                wrong.append(f"line {number} ({len(row)})")
            rows.append(dict(zip(header, row, strict=False)))
            places.append(f"line {number}")
    if wrong:
        got = f"rows of another length: {', '.join(wrong[:5])}{' and more' if len(wrong) > 5 else ''}"
        raise InputError(problem(str(path), got, f"{len(header)} cells in each", "correct these lines"))
    return Sheet(str(path), tuple(header), tuple(rows), tuple(places))


def _numbered(path: Path, text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Yield rows with the numbers of their lines."""
    lines = csv.reader(io.StringIO(text), delimiter=separator)
    last = 0
    try:
        for row in lines:
            last = lines.line_num
            yield last, row
    except csv.Error as error:  # a cell of more than 128 kB, most often after a quote that is never closed
        got = f"{error} in the row after line {last}"
        raise InputError(problem(str(path), got, "a table of short cells", "look for a missing quote there")) from error


def _parquet(path: Path) -> Sheet:
    import pyarrow
    import pyarrow.parquet

    try:
        rows = pyarrow.parquet.read_table(path).to_pylist()
    except pyarrow.ArrowInvalid as error:
        raise InputError(problem(str(path), str(error), "a Parquet file", "save the table again")) from error
    cells = [{name: _cell(value) for name, value in row.items()} for row in rows]
    return of_objects(str(path), cells, [f"row {number}" for number in range(1, len(rows) + 1)])


def _cell(value: Any) -> Any:
    """Return a Parquet value as a cell: decimals are numbers, dates and the like text; what is nested stays so."""
    if isinstance(value, decimal.Decimal):
        return float(value)
    return value if value is None or isinstance(value, str | int | float | dict | list) else str(value)


def _json(path: Path, text: str, in_lines: bool) -> Sheet:
    try:
        if in_lines:
            numbered = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
            rows, places = [json.loads(line) for _, line in numbered], [f"line {number}" for number, _ in numbered]
        else:
            found = json.loads(text)
            if peft_results.is_result(found):
                return peft_results.of_results(str(path), [(path.name, found)])
            rows = found if isinstance(found, list) else [found]
            places = [f"row {number}" for number in range(1, len(rows) + 1)]
    except json.JSONDecodeError as error:
        raise InputError(problem(str(path), f"no JSON: {error}", "JSON", "check that it is the right file")) from error
    return of_objects(str(path), rows, places)


def of_objects(source: str, rows: Sequence[Any], places: Sequence[str]) -> Sheet:
    """Make a sheet of objects whose values are cells; columns in the order of their first appearance."""
    for row, place in zip(rows, places, strict=True):
        expected = "objects with a number or a text in each field"
        if not isinstance(row, dict):
            raise InputError(problem(source, f"something else than an object in {place}", expected, "correct it"))
        nested = [name for name, value in row.items() if isinstance(value, dict | list)]
        if nested:
            raise InputError(problem(source, f"a nested value ('{nested[0]}') in {place}", expected, "flatten it"))
    columns = dict.fromkeys(name for row in rows for name in row)
    return Sheet(source, tuple(columns), tuple(rows), tuple(places))
