"""What picking the best of k numbers adds to it, when the number that is shown is the one that was picked by.

The best of k configurations of equal worth and noise sigma lies above their worth by at most sigma sqrt(2 ln k) on
average (maximal inequality; Boucheron, Lugosi, Massart, Concentration Inequalities, 2013, theorem 2.5).
"""

import math
from dataclasses import dataclass

from welltuned.audit.records import Book


@dataclass(frozen=True)
class Inflation:
    """How much the best of `num_tried` may owe to chance; None where the noise is not known."""

    num_tried: int
    sigma: float | None  # standard error of one configuration's number
    bound: float | None  # sigma sqrt(2 ln k), in the metric's unit


def bound(sigma: float, num_tried: int) -> float:
    """Return sigma sqrt(2 ln k): 0 for a single one.

    >>> bound(1.0, 1), round(bound(0.38, 36), 3)
    (0.0, 1.017)
    """
    return sigma * math.sqrt(2 * math.log(num_tried))


def inflation(book: Book, num_tried: int, sigma: float | None) -> Inflation:
    """Return the inflation of a number that is the best of `num_tried`; none where other numbers judge than chose."""
    if book.fresh or num_tried < 2:
        return Inflation(1 if book.fresh else num_tried, sigma, 0.0)
    return Inflation(num_tried, sigma, None if sigma is None else bound(sigma, num_tried))
