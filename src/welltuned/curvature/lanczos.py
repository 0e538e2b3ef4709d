"""Extreme eigenvalues of N symmetric matrices at once, each known by its products with vectors alone.

Lanczos 1950, with full re-orthogonalisation (twice, which is enough: Parlett 1998, section 6.9) and a thick restart (Wu
and Simon 2000) where the vectors that may be kept are full: the Ritz vectors at both ends go on, with the last
residual. The N recurrences share nothing but the call of the product, so that N blocks of a model cost one pass. Those
that have converged leave.

For a Ritz pair (t, y) there is an eigenvalue within the residual norm |H y - t y|, which is the norm of the last
residual times the last entry of the small eigenvector. It need not be the extreme one, so the Ritz value must also have
stood still. Where the rest of the spectrum is a gap away, the error is at most the residual squared over the gap
(Parlett 1998, theorem 11.7.1; the gap is taken between Ritz values). A Ritz value at the top is never above the largest
eigenvalue, one at the bottom never below the smallest.
Shape letters: N matrices, P size, J vectors kept.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Product = Callable[[Tensor, Sequence[int]], Tensor]  # (v_NP of those still running, their numbers) -> H v

TOLERANCE = 1e-2  # of an error, relative to the largest |eigenvalue|; assumed, far below what methods differ by
MIN_PRODUCTS = 5  # lr-matters-lora's (arXiv 2602.04998)
PATIENCE = (
    3  # products over which a Ritz value must have stood still: an eigenvalue near it may not be the last; assumed
)
MAX_PRODUCTS = 100  # the same source
MAX_VECTORS = 40  # kept of each recurrence; assumed
KEPT = 6  # Ritz vectors of each end that a restart keeps; assumed
BREAKDOWN = 1e-6  # relative; a smaller residual is rounding in single precision, and the space is invariant


@dataclass(frozen=True)
class Extreme:
    """An extreme eigenvalue, with two bounds of its error: the residual norm, and the smaller of it and the gap's."""

    value: float
    residual: float
    error: float


@dataclass(frozen=True)
class Spectrum:
    """Both ends of one spectrum, after so many products."""

    largest: Extreme
    smallest: Extreme
    num_products: int
    converged: bool


@dataclass(frozen=True)
class Effort:
    """When to stop: at which relative error, after how many products, with how many vectors kept of each recurrence."""

    tolerance: float = TOLERANCE
    max_products: int = MAX_PRODUCTS
    max_vectors: int = MAX_VECTORS


def extremes(product: Product, start_NP: Tensor, both: bool = True, effort: Effort | None = None) -> list[Spectrum]:
    """Return both ends of the spectra of N symmetric matrices; where not `both`, only the largest has to converge."""
    effort = effort or Effort()
    runs = [_Run(start_P, both, effort) for start_P in start_NP.double()]
    for _ in range(effort.max_products):
        live = [number for number, run in enumerate(runs) if not run.is_done()]
        if not live:
            break
        v_NP = torch.stack([runs[number].next_P for number in live]).to(start_NP.dtype)
        for number, w_P in zip(live, product(v_NP, live).double(), strict=True):
            runs[number].take(w_P)
    return [run.spectrum() for run in runs]


class _Run:
    """One recurrence: an orthonormal basis, the matrix projected on it, the next vector, and both ends so far."""

    def __init__(self, start_P: Tensor, both: bool, effort: Effort) -> None:
        self.both, self.effort = both, effort
        self.basis_JP = start_P.new_zeros(0, len(start_P))
        self.projected_JJ = start_P.new_zeros(0, 0)
        norm = start_P.norm().item()
        assert norm > 0, "a recurrence starts from a vector that is not zero"
        self.next_P = start_P / norm
        self.rest = 1.0  # norm of the last residual
        self.num_products = 0
        self.largest = self.smallest = Extreme(0.0, math.inf, math.inf)
        self.seen: list[tuple[float, float]] = []  # both ends after each product

    def take(self, w_P: Tensor) -> None:
        """Take in w = H v of the next vector v, and choose the vector after it."""
        self.num_products += 1
        self.basis_JP = torch.cat([self.basis_JP, self.next_P[None]])
        along_J = self.basis_JP @ w_P
        w_P = w_P - along_J @ self.basis_JP
        again_J = self.basis_JP @ w_P  # the second time: rounding leaves a component behind
        w_P = w_P - again_J @ self.basis_JP
        size = len(self.basis_JP)
        projected_JJ = w_P.new_zeros(size, size)
        projected_JJ[:-1, :-1] = self.projected_JJ
        projected_JJ[-1] = projected_JJ[:, -1] = along_J + again_J
        self.projected_JJ, self.rest = projected_JJ, w_P.norm().item()
        if self.rest <= BREAKDOWN * projected_JJ.norm().item() or size == len(w_P):
            self.rest = 0.0
        self._look()
        if self.rest > 0:
            self.next_P = w_P / self.rest

    def _look(self) -> None:
        """Note both ends, and restart where the vectors are full."""
        values_J, vectors_JJ = torch.linalg.eigh(self.projected_JJ)
        residuals_J = self.rest * vectors_JJ[-1].abs()
        self.largest = _extreme(values_J.flip(0), residuals_J.flip(0))
        self.smallest = _extreme(values_J, residuals_J)
        self.seen.append((self.largest.value, self.smallest.value))
        if len(values_J) == self.effort.max_vectors:
            kept = min(KEPT, len(values_J) // 4)
            chosen = [*range(kept), *range(len(values_J) - kept, len(values_J))]
            self.basis_JP = vectors_JJ[:, chosen].T @ self.basis_JP
            self.projected_JJ = torch.diag(values_J[chosen])

    def is_done(self) -> bool:
        """Say whether the ends that are wanted are known well enough."""
        if self.rest == 0:
            return True
        if self.num_products < max(MIN_PRODUCTS, PATIENCE + 1):
            return False
        within = self.effort.tolerance * max(abs(self.largest.value), abs(self.smallest.value))
        pairs = zip((self.largest, self.smallest), self.seen[-1 - PATIENCE], strict=True)
        return all(
            end.error <= within and abs(end.value - before) <= within for end, before in [*pairs][: 1 + self.both]
        )

    def spectrum(self) -> Spectrum:
        """Return what is known."""
        return Spectrum(self.largest, self.smallest, self.num_products, self.is_done())


def _extreme(values_J: Tensor, residuals_J: Tensor) -> Extreme:
    """Return the first of the Ritz values, ordered from one end, with its bounds."""
    residual = residuals_J[0].item()
    gap = abs(values_J[0] - values_J[1]).item() if len(values_J) > 1 else 0.0
    error = min(residual, residual**2 / gap) if gap > 0 else residual
    return Extreme(values_J[0].item(), residual, error)
