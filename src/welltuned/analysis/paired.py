"""Values of two methods as paired differences d[seed, item], a diverged run as a row that is all wrong.

Both methods ran the same seeds and answered the same items, so every cell of one array has its partner in the other.
Nothing here reads a store: a row is what a seed scored on each item, whoever measured it.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def correct_rows(answers: Sequence[Sequence[bool | float] | None], num_items: int) -> Floats:
    """Return correctness as an array of seeds x items; None is a diverged run, which answers nothing right.

    >>> correct_rows([(True, False), None], 2).tolist()
    [[1.0, 0.0], [0.0, 0.0]]
    """
    rows = [np.zeros(num_items) if row is None else np.asarray(row, dtype=np.float64) for row in answers]
    wrong = [len(row) for row in rows if row.shape != (num_items,)]
    if wrong:
        raise ValueError(f"answers: got a row of {wrong[0]} items, expected {num_items}, the same items for every seed")
    return np.array(rows).reshape(len(rows), num_items)


def differences(ours: ArrayLike, theirs: ArrayLike) -> Floats:
    """Return ours - theirs, both seeds x items in the same order. A metric without items has one column."""
    one, other = np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)
    if one.shape != other.shape:
        raise ValueError(f"paired values: got shapes {one.shape} and {other.shape}, expected the same seeds and items")
    return one - other
