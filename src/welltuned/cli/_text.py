"""How things read on the screen: aligned tables, durations, sizes, notes; and JSON for programs."""

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from welltuned.analysis.wording import DASH, plural

if TYPE_CHECKING:
    from welltuned.records import Event
    from welltuned.study import Notice


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out rows under headings; columns of numbers are set flush right.

    >>> print(table(["method", "loss"], [["lora", "0.5"], ["pissa", "12.25"]]))
    method   loss
    lora      0.5
    pissa   12.25
    """
    columns = list(zip(headings, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    right = [all(_numeric(cell) for cell in column[1:]) for column in columns]
    lines = []
    for row in [headings, *rows]:
        cells = zip(row, widths, right, strict=True)
        lines.append("  ".join(cell.rjust(width) if flush else cell.ljust(width) for cell, width, flush in cells))
    return "\n".join(line.rstrip() for line in lines)


def duration(seconds: float | None) -> str:
    """Write a duration in its two largest units.

    >>> duration(3.2), duration(75.0), duration(7384.0), duration(200000.0), duration(None) == DASH
    ('3 s', '1 min 15 s', '2 h 03 min', '2 d 07 h', True)
    """
    if seconds is None:
        return DASH
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600:02d} h"


def size(num_bytes: float) -> str:
    """Write a number of bytes.

    >>> size(999), size(1_500_000), size(24e9)
    ('999 B', '1.5 MB', '24.0 GB')
    """
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= scale:
            return f"{num_bytes / scale:.1f} {unit}"
    return f"{num_bytes:.0f} B"


def training(num_trials: int) -> str:
    """Say what a pack does.

    >>> training(1), training(3)
    ('training 1 trial', 'training 3 trials together')
    """
    return f"training {plural(num_trials, 'trial')}{'' if num_trials == 1 else ' together'}"


def say_note(event: "Event | Notice") -> None:
    """Say what takes time before a plan is shown; the plan alone goes to the standard output."""
    from welltuned.study import Note

    if isinstance(event, Note):
        print(event.text, file=sys.stderr, flush=True)


def print_json(value: object) -> None:
    """Print JSON for another program; a number that JSON has no word for is a defect and raises."""
    print(json.dumps(value, indent=2, allow_nan=False))


def _numeric(cell: str) -> bool:
    return cell in ("", DASH) or cell[:1].isdigit() or (cell[:1] in "+-" and cell[1:2].isdigit())
