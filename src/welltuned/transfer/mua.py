"""The largest stable learning rate of a low-rank pair under sign descent, as orders of magnitude (muA).

Chen, Villar and Hayou 2026, arXiv 2602.06204, theorems 4.3 and 4.5 for Init[A] and Init[B]; the master formula below,
which also covers both factors random, is derived here in their manner and checked in the tests by simulation:

    eta_max ~ min{ (s n r)^(-1/2),  1 / (s n r^(1/2) b0),  1 / (s r z0) }

n inputs, r rank, s the multiplier of B A x, b0 the size of B's entries at the start and z0 that of the entries of A x.
The three terms keep the second-order step s dB dA x, the step s B0 dA x and the step s dB A0 x from exceeding order 1.
Only ratios of it are used: its constant is not known.
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Bound:
    """log2 of eta_max and its slopes: d log eta_max / d log of rank (alpha policy kept), multiplier and width."""

    log2: float
    rank_slope: float
    scaling_slope: float
    width_slope: float


def bound(start: str, width: int, rank: int, scaling: float, alpha_power: float) -> Bound:
    """Evaluate the master formula for a start ("A", "B", "AB", "SVD"; "full": no pair).

    `alpha_power` is g of a multiplier ~ r^-g.

    >>> bound("A", 1024, 8, 1.0, 0.0).rank_slope, bound("A", 1024, 8, 2.0, 1.0).rank_slope
    (-0.5, 0.0)
    """
    log_n, log_r, log_s = math.log2(width), math.log2(rank), math.log2(scaling)
    # Each term as exponents of (n, r, s): eta <= n^a r^b s^c.
    grown = (-0.5, -0.5, -0.5)
    terms = {
        "full": ((-1.0, 0.0, 0.0),),  # no pair of factors: the step s dW x alone, of n aligned terms
        "A": (grown, (0.0, -1.0, -1.0)),  # b0 = 0, z0 = 1
        "B": (grown, (-1.0, 0.0, -1.0)),  # b0 = r^-1/2, z0 = 0
        "AB": (grown, (-0.5, -0.5, -1.0), (0.0, -1.0, -1.0)),  # b0 = n^-1/2, z0 = 1
        "SVD": (grown, (-0.5, -0.5, -0.5), (0.0, -1.0, -0.5)),  # the same over s^1/2, singular values of order 1
    }[start]
    log2, (a, b, c) = min(((a * log_n + b * log_r + c * log_s), (a, b, c)) for a, b, c in terms)
    return Bound(log2, b - alpha_power * c, c, a)
