"""Reading a text out of a row, whatever the file made of it."""

import math
from collections.abc import Mapping


def text_of(row: Mapping[str, object], column: str, required: bool = True) -> str:
    """Return a column as text: "" for nothing there (None, NaN), a number without a trailing ".0".

    Raises KeyError where a required column is missing and ValueError where it holds no text or number.
    """
    if column not in row:
        if required:
            raise KeyError(column)
        return ""
    value = row[column]
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str):
        return value.replace("\r\n", "\n").removeprefix("\ufeff")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"column '{column}' holds a {type(value).__name__}, expected text")
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def prompt_of(row: Mapping[str, object], column: str) -> str:
    """Return a column as a prompt on lines of its own; raises ValueError where it is blank."""
    text = text_of(row, column).strip()
    if not text:
        raise ValueError(f"column '{column}' is empty, expected a prompt")
    return text + "\n"
