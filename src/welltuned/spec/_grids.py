"""Grids by name for a numeric axis: `{ grid = "4-per-decade", from = 1e-4, to = 2e-2 }`, both ends included."""

import math

GRIDS = {
    "1-2-5": "1, 2 and 5 times the powers of ten",
    "4-per-decade": "2e-4 times 10^(k/4)",
    "powers-of-two": "2^k",
}
ANCHOR = 2e-4  # of "4-per-decade": the learning rate of LoRA's paper (Hu et al. 2021, table 11) is on the grid
TOLERANCE = 1e-9  # relative: an end that is on the grid counts, however it was rounded
DIGITS = 10  # significant: equal to the bit on machines whose pow() rounds differently


def values(grid: str, low: float, high: float) -> tuple[float, ...]:
    """Return the grid's members from `low` to `high`, ascending.

    >>> values("1-2-5", 1e-3, 2e-2)
    (0.001, 0.002, 0.005, 0.01, 0.02)
    >>> values("powers-of-two", 4, 32)
    (4.0, 8.0, 16.0, 32.0)
    >>> values("4-per-decade", 1e-4, 4e-4)
    (0.000112468265, 0.0002, 0.000355655882)
    """
    low, high = low * (1 - TOLERANCE), high * (1 + TOLERANCE)
    return tuple(value for value in _candidates(grid, low, high) if low <= value <= high)


def _candidates(grid: str, low: float, high: float) -> list[float]:
    """List ascending members that reach over both ends."""
    if grid == "powers-of-two":
        return [2.0**k for k in range(math.floor(math.log2(low)), math.ceil(math.log2(high)) + 1)]
    if grid == "4-per-decade":
        first, last = (4 * math.log10(end / ANCHOR) for end in (low, high))
        exact = [ANCHOR * 10 ** (k / 4) for k in range(math.floor(first), math.ceil(last) + 1)]
        return [float(f"{value:.{DIGITS}g}") for value in exact]
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [float(f"{digit}e{decade}") for decade in decades for digit in (1, 2, 5)]
