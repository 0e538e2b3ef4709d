"""What the cells of a table say: numbers, `mean ± sd`, per cent, lists, and the many ways of writing "missing".

A cell that is none of these is returned as such, so that the caller can name its row: text is never read as a number.
"""

import math
import re
from dataclasses import dataclass

Cell = str | int | float | bool | None  # as it comes out of CSV (text), JSON or Parquet

MISSING = frozenset({"", "-", "–", "—", "na", "n/a", "nan", "none", "null", "n.a.", "/"})
TRUE, FALSE = frozenset({"true", "yes", "y", "t"}), frozenset({"false", "no", "n", "f"})
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|[+-]?inf(?:inity)?"
_PLAIN = re.compile(rf"({_NUMBER})\s*(%?)", re.IGNORECASE)
_COMMA = re.compile(r"[+-]?\d+,\d+(?:[eE][+-]?\d+)?\s*%?")
_SPREAD = re.compile(
    rf"({_NUMBER})\s*%?\s*(?:(?:±|\+/-|\+-|\\pm)\s*({_NUMBER})\s*%?|\(±?\s*({_NUMBER})\s*%?\s*\))", re.IGNORECASE
)


@dataclass(frozen=True)
class Reading:
    """A number as a cell gives it; `sd` is what stands behind ±, `percent` says that a % sign stood there."""

    value: float
    sd: float | None = None
    percent: bool = False


def is_missing(cell: Cell) -> bool:
    """Say whether a cell is empty or says that there is nothing (NaN included).

    >>> is_missing("n/a"), is_missing(float("nan")), is_missing("0")
    (True, True, False)
    """
    if isinstance(cell, str):
        return cell.strip().casefold() in MISSING
    return cell is None or (isinstance(cell, float) and math.isnan(cell))


def is_nan(cell: Cell) -> bool:
    """Say whether a cell spells out NaN, which is what a loss is after a run has diverged; an empty cell does not.

    >>> is_nan("NaN"), is_nan(float("nan")), is_nan(""), is_nan(None)
    (True, True, False, False)
    """
    return cell.strip().casefold() == "nan" if isinstance(cell, str) else isinstance(cell, float) and math.isnan(cell)


def has_decimal_comma(cell: Cell) -> bool:
    """Say whether a cell is a number that is written with a comma where we read a point.

    >>> has_decimal_comma("61,2"), has_decimal_comma("0,0001"), has_decimal_comma("1e-03, 3e-03")
    (True, True, False)
    """
    return isinstance(cell, str) and _COMMA.fullmatch(cell.strip()) is not None


def number(cell: Cell) -> Reading | None:
    r"""Read a number, a mean with its spread, or a percentage; None where the cell is text.

    >>> number("73.1 ± 0.4"), number("73.1 %").percent, number(r"$73.1 \pm 0.4$").sd, number("0.5 (0.01)").sd
    (Reading(value=73.1, sd=0.4, percent=False), True, 0.4, 0.01)
    >>> number("about 3") is None, number("1e-4").value
    (True, 0.0001)
    """
    if isinstance(cell, bool) or cell is None:
        return None
    if isinstance(cell, int | float):
        return Reading(float(cell))
    text = re.sub(r"[$*{}]", "", cell.replace("−", "-").replace(r"\%", "%")).strip()
    plain = _PLAIN.fullmatch(text)
    if plain:
        return Reading(float(plain.group(1)), None, bool(plain.group(2)))
    spread = _SPREAD.fullmatch(text)
    if spread is None:
        return None
    return Reading(float(spread.group(1)), float(spread.group(2) or spread.group(3)), "%" in text)


def numbers(cell: Cell) -> tuple[float, ...] | None:
    """Read one number or several separated by commas; None where one of them is text.

    >>> numbers("1e-03, 3e-03"), numbers(16), numbers("all")
    ((0.001, 0.003), (16.0,), None)
    """
    parts = cell.split(",") if isinstance(cell, str) else [cell]
    readings = [number(part) for part in parts]
    found = [reading.value for reading in readings if reading is not None and reading.sd is None]
    return tuple(found) if len(found) == len(parts) else None


def flag(cell: Cell) -> int | None:
    """Read how often something holds: a count, or true as 1 and false as 0; None where the cell says neither.

    >>> flag("True"), flag("no"), flag("4"), flag(""), flag("perhaps")
    (1, 0, 4, 0, None)
    """
    if is_missing(cell):
        return 0
    if isinstance(cell, str) and cell.strip().casefold() in TRUE | FALSE:
        return int(cell.strip().casefold() in TRUE)
    if isinstance(cell, bool):
        return int(cell)
    reading = number(cell)
    count = reading.value if reading is not None else -1.0
    return int(count) if math.isfinite(count) and count >= 0 and count == int(count) else None


def text(cell: Cell) -> str:
    """Write a cell as the name of something: 8.0 and "8" are the same name.

    >>> text(8.0), text(" lora "), text(None)
    ('8', 'lora', '')
    """
    if is_missing(cell):
        return ""
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell).strip()
