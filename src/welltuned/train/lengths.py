"""The few lengths T that a compiled pack pads its micro-steps to: each is compiled once, each saves padding.

Lengths are rounded up, so that packs of one study have them in common and find their code in the compiler's cache.
"""

import itertools
from collections.abc import Sequence

import numpy as np

MOST_LENGTHS = 4
MULTIPLE = 8  # of which lengths are; assumed: at 94 tokens it adds 2 %


def chosen(lengths: Sequence[int], token_seconds: float, compile_seconds: float, longest: int) -> tuple[int, ...]:
    """Return the lengths, ascending, that a pack should pad its micro-steps of these lengths to.

    `token_seconds` is what a token more of a micro-step's length takes, `compile_seconds` what a length more takes;
    `longest` is that of the longest row of all.
    """
    rounded = [min(longest, -(-length // MULTIPLE) * MULTIPLE) for length in lengths]
    choices = [fewest(rounded, most) for most in range(1, MOST_LENGTHS + 1)]

    def seconds(choice: tuple[int, ...]) -> float:
        computed = np.asarray(choice)[np.searchsorted(choice, rounded)].sum()
        return token_seconds * float(computed) + compile_seconds * len(choice)

    return min(choices, key=seconds)


def fewest(lengths: Sequence[int], most: int) -> tuple[int, ...]:
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
