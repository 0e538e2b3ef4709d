"""A study's whole table as one compressed file, to be committed, mailed or replayed: its declaration, then its results.

The format is gzipped JSON lines with fixed time stamps, so that the same study gives the same bytes.
"""

import dataclasses
import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from welltuned.errors import InputError, problem
from welltuned.records import (
    Config,
    Declaration,
    Hindsight,
    Point,
    ReadCount,
    Result,
    Role,
    Site,
    Status,
    Survey,
)
from welltuned.store import verdict

FORMAT = 1


def write(path: Path, declaration: Declaration, results: Sequence[Result]) -> None:
    """Write a study's declaration and results to `path` (.jsonl.gz)."""
    lines: list[dict[str, Any]] = [
        {"welltuned": FORMAT, **dataclasses.asdict(declaration)},
        *map(dataclasses.asdict, results),
    ]
    text = "".join(json.dumps(line, allow_nan=False, sort_keys=True) + "\n" for line in lines)
    path.write_bytes(gzip.compress(text.encode(), compresslevel=9, mtime=0))


def read(path: Path) -> tuple[Declaration, tuple[Result, ...]]:
    """Read back what `write` wrote."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        head, *rows = [json.loads(line) for line in file]
    found = head.pop("welltuned", None)
    if found != FORMAT:
        raise InputError(problem(str(path), found, f"a recorded study of format {FORMAT}", "record the study again"))
    return _declaration(head), tuple(_result(row) for row in rows)


def _declaration(fields: dict[str, Any]) -> Declaration:
    fields["surveys"] = tuple(_survey(survey) for survey in fields["surveys"])
    fields["cell"], fields["environments"] = tuple(fields["cell"]), tuple(fields["environments"])
    if fields.get("comparison") is not None:
        fields["comparison"] = verdict.of_fields(fields["comparison"])
    fields["hindsight"] = tuple(Hindsight(**row) for row in fields.get("hindsight", ()))
    fields["test_reads"] = tuple(ReadCount(**row) for row in fields.get("test_reads", ()))
    return Declaration(**fields)


def _survey(fields: dict[str, Any]) -> Survey:
    fields["sites"] = tuple(Site(**site) for site in fields["sites"])
    return Survey(**fields)


def _result(fields: dict[str, Any]) -> Result:
    fields["role"], fields["status"] = Role(fields["role"]), Status(fields["status"])
    fields["config"] = Config.parse(json.dumps(fields["config"]))
    fields["curve"] = tuple(Point(**point) for point in fields["curve"])
    if fields["test_correct"] is not None:
        fields["test_correct"] = tuple(fields["test_correct"])
    return Result(**fields)
