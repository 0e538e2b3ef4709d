"""How many strands train a pack on a CPU: threads of Python that train some of its trials each, side by side.

An operation that is split over all cores waits for the slowest of them, and while Python goes from one operation to the
next all cores but one do nothing; strands wait for each other once in a micro-step. But Python itself runs in one
thread at a time, so that small operations gain nothing. Measured on two AMD cores with abacus-middle, 4 or 5 rows of a
trial, rows/s of two strands of one thread each over one strand of two threads, taken in turn: with 32 trials 1.02 to
1.13 compiled, 1.05 to 1.16 uncompiled, 1.13 in float32, 1.06 with DoRA; with 16 trials 1.00 and 1.06 compiled, 1.04 and
1.12 uncompiled; with 31 trials uncompiled, in strands of 16 and 15, 1.06, 1.15 and 1.23, with 27 trials 1.03, 1.19 and
1.04; with 8 trials 0.90 and 1.00, with 2 trials 0.77 and 0.72. On more than two cores nothing was measured.
"""

from collections.abc import Sequence

MOST = 2  # of more at a time nothing has been measured
FEWEST_TRIALS = 8  # of a strand: what was measured to pay


def number(sizes: Sequence[int], threads: int, device: str, compiled: bool, first: int = 0) -> int:
    """Return the number of strands for groups of so many trials, of which each strand has half.

    Compiled code serves any number of trials but one: no strand may have one of a group of which another has
    more, or none. It is for the threads that the pack began with, `first` (0: it begins now): two strands stay two
    while their code serves. What came between decides nothing, since who goes on from a checkpoint does not know it.

    >>> number([32], 2, "cpu", True), number([31], 2, "cpu", True), number([20, 12], 8, "cpu", True)
    (2, 2, 2)
    >>> number([29, 3], 2, "cpu", True), number([29, 3], 2, "cpu", False), number([14], 2, "cpu", False)
    (1, 2, 1)
    >>> number([32], 3, "cpu", True), number([32], 1, "cpu", True), number([32], 2, "cuda", True)
    (1, 1, 1)
    >>> number([6], 2, "cpu", True, 2), number([6], 2, "cpu", False, 2), number([3], 2, "cpu", True, 2)
    (2, 1, 1)
    """
    if compiled and first == MOST and min(sizes, default=0) >= 2 * MOST:
        return MOST
    can_deal = threads % MOST == 0 and not (compiled and any(size % MOST and size < 2 * MOST for size in sizes))
    return MOST if device == "cpu" and can_deal and sum(sizes) >= MOST * FEWEST_TRIALS else 1
