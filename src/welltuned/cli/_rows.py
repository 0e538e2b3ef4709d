"""How many rows train, validate and test a study that a command writes: as many as the data has, counted beforehand.

They are counted by the reader that the tasks have, so that every kind of file counts. A tenth each, at most, is for
validation and test; of the rest one in a hundred may be dropped for its length without the study failing for it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from welltuned.errors import InputError, problem

MOST = (2048, 256, 512)  # assumed: rows that train, validate and test where there are enough
HELD_OUT_PART = 10
FEWEST = 4  # training rows: the smallest batch


@dataclass(frozen=True)
class Split:
    """Rows of each split."""

    num_train: int
    num_validation: int
    num_test: int


def split_of(data: Sequence[str], ask_hub: bool) -> tuple[Split, int | None]:
    """Return the rows of each split for this data, and how many there are; None where they were not counted.

    Not counted are a task's own examples and, unless `ask_hub`, what is no file here: a study's check says which is
    missing together with everything else that is wrong, and does not ask the hub.
    """
    from welltuned.data import sources

    if not data or not (ask_hub or all(Path(name).expanduser().is_file() for name in data)):
        return Split(*MOST), None
    num_rows = sources.count(data, "train")
    if split(num_rows).num_train < FEWEST:
        expected = f"at least {fewest_rows(FEWEST)}"
        raise InputError(problem("--data", f"{num_rows} rows in all", expected, "add rows, or name another file"))
    return split(num_rows), num_rows


def split(num_rows: int) -> Split:
    """Split a number of rows.

    >>> split(300), split(60).num_train, split(10_000).num_train
    (Split(num_train=238, num_validation=30, num_test=30), 48, 2048)
    """
    from welltuned.data import MAX_DROPPED

    most_train, most_validation, most_test = MOST
    tenth = max(1, num_rows // HELD_OUT_PART)
    num_validation, num_test = min(most_validation, tenth), min(most_test, tenth)
    left = num_rows - num_validation - num_test
    return Split(min(most_train, left - int(MAX_DROPPED * left)), num_validation, num_test)


def fewest_rows(num_train: int) -> int:
    """Return the number of rows from which on so many are left to train."""
    num_rows = 2 * num_train  # enough, since more than half of them train
    while split(num_rows - 1).num_train >= num_train:
        num_rows -= 1
    return num_rows
