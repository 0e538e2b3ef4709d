"""The few lengths T that a compiled pack pads its micro-steps to, chosen so that the least padding is computed."""

import itertools
from collections.abc import Sequence

import numpy as np

MOST_LENGTHS = 4  # each is compiled once, 15 to 20 s where nothing is cached (measured on two CPU cores)


def chosen(lengths: Sequence[int], most: int = MOST_LENGTHS) -> tuple[int, ...]:
    """Return at most `most` of these lengths, ascending, the longest among them, that add least when rounded up to.

    Exact, by dynamic programming over the distinct lengths.
    """
    values, counts = np.unique(np.asarray(lengths), return_counts=True)
    before = np.concatenate([[0], np.cumsum(counts)])
    best: dict[int, tuple[int, tuple[int, ...]]] = {
        0: (0, ())
    }  # number of distinct lengths covered -> (tokens computed, lengths chosen)
    for _ in range(most):
        step: dict[int, tuple[int, tuple[int, ...]]] = {}
        for (first, (cost, picked)), last in itertools.product(best.items(), range(len(values))):
            if last >= first:
                total = cost + int(values[last]) * int(before[last + 1] - before[first])
                option = (total, (*picked, int(values[last])))
                step[last + 1] = min(step.get(last + 1, option), option)
        for covered, option in step.items():
            best[covered] = min(best.get(covered, option), option)
    return best[len(values)][1]


def padded(num_tokens: int, choice: Sequence[int]) -> int:
    """Return the shortest chosen length that holds this many tokens."""
    return next(length for length in choice if length >= num_tokens)
