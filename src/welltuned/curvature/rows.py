"""The rows that a loss is the mean over, in chunks, and what the gradients of single rows say of a batch's.

The gradient of a batch is a ratio, the rows' summed gradients over their summed target tokens. With G_i and c_i those
of row i and g the gradient over all M rows, one row's part of the batch's variance is to first order (Cochran 1977,
section 6.4) the mean square of (G_i - c_i g) / mean(c), over M - 1 rows; a batch of B rows has 1 / B of it.
Shape letters: R rows, P numbers.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from welltuned.packing.batch import RowTable

TOKENS_PER_PASS = (
    4096  # of a pass, padded, times the vectors that go through it; measured: 8 % to 25 % faster than 1024
)


class Rows(NamedTuple):
    """The rows that the loss is the mean over."""

    table: RowTable
    numbers: np.ndarray

    @property
    def num_targets(self) -> int:
        """Return the number of target tokens."""
        return int(self.table.num_targets[self.numbers].sum())

    @property
    def longest(self) -> np.ndarray:
        """Return the number of the longest row, alone."""
        return self.numbers[[int(np.argmax(self.table.lengths[self.numbers]))]]

    def chunks(self, num_vectors: int, most: int | None = None) -> list[np.ndarray]:
        """Return the row numbers in chunks, `most` at most, rows of like length together, as large as a pass may be."""
        lengths = self.table.lengths[self.numbers]
        order = self.numbers[np.argsort(-lengths, kind="stable")]
        found = []
        while len(order):
            width = max(1, TOKENS_PER_PASS // (num_vectors * int(self.table.lengths[order[0]])))
            width = min(width, most or width)
            found.append(order[:width])
            order = order[width:]
        return found

    def shares(self, numbers: np.ndarray) -> Tensor:
        """Return the share of some rows in the target tokens."""
        return torch.from_numpy(self.table.num_targets[numbers] / self.num_targets)


class Spread:
    """Adds up the gradients of single rows: their sum, which is g, and one row's variance, for every number."""

    def __init__(self, num_rows: int, own_P: Tensor) -> None:
        self.num_rows = num_rows
        self.mean_P, self._squares_P, self._products_P = (torch.zeros_like(own_P) for _ in range(3))
        self._shares = 0.0

    def add(self, rows_RP: Tensor, share_R: Tensor) -> None:
        """Take in some rows' parts of g, and their shares of the target tokens."""
        share_R = share_R.to(rows_RP)
        size = rows_RP.shape[1]
        self.mean_P[:size] += rows_RP.sum(0)
        self._squares_P[:size] += rows_RP.square().sum(0)
        self._products_P[:size] += share_R @ rows_RP
        self._shares += share_R.square().sum().item()

    def variance(self) -> Tensor | None:
        """Return what one row adds to the variance, [P]; None of a single row."""
        if self.num_rows < 2:
            return None
        spread_P = self._squares_P - 2 * self.mean_P * self._products_P + self.mean_P.square() * self._shares
        return spread_P.clamp_min(0) * (self.num_rows**2 / (self.num_rows - 1))
