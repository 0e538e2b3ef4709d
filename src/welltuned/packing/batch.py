"""From rows to tensors: all rows of a split, and blocks [N x m, T] of some with their flat list of target positions.

Validation, initialisations and curvature read blocks; what a micro-step reads is in lines.py. Rows are right-padded, so
with causal attention no real token ever sees padding and no mask is needed.
Shape letters: N trials, M rows of a trial, T tokens, K target positions of all rows, trial-major.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from welltuned.data import Rows


@dataclass(frozen=True)
class Block:
    """Rows as a model reads them, and where their targets are."""

    ids_RT: Tensor  # R = N x M
    positions_K: Tensor  # flat index (row * T + t) of the position that predicts the target
    targets_K: Tensor
    row_K: Tensor  # the row of each target


class RowTable:
    """All rows of a split as one padded array, from which blocks are gathered."""

    def __init__(self, rows: Rows, pad_id: int, device: torch.device) -> None:
        self.lengths = np.array([len(ids) for ids in rows.token_ids])
        self.prompt_lengths = np.asarray(rows.prompt_lengths)
        # a first token has no position that predicts it
        self.num_targets = self.lengths - np.maximum(self.prompt_lengths, 1)
        self.ids = np.full((len(self.lengths), int(self.lengths.max())), pad_id, dtype=np.int64)
        for row, ids in enumerate(rows.token_ids):
            self.ids[row, : len(ids)] = ids
        self.device = device

    def block(self, rows: Sequence[np.ndarray], width: int) -> Block:
        """Gather N lists of at most `width` rows each; unused slots repeat row 0 and have no targets."""
        real = np.concatenate([np.arange(width) < len(part) for part in rows])
        flat = np.zeros(len(rows) * width, dtype=np.int64)
        flat[real] = np.concatenate(rows)
        num_tokens = int(self.lengths[flat[real]].max())
        ids_RT = self.ids[flat][:, :num_tokens]
        place_T = np.arange(num_tokens)[None]
        start_R = np.maximum(self.prompt_lengths[flat], 1)[:, None]
        target_RT = (place_T >= start_R) & (place_T < self.lengths[flat][:, None]) & real[:, None]
        row_K, t_K = np.nonzero(target_RT)
        tensors = (ids_RT, row_K * num_tokens + t_K - 1, ids_RT[row_K, t_K], row_K)
        return Block(*(moved(array, self.device) for array in tensors))


def moved(array: np.ndarray, device: torch.device) -> Tensor:
    """Return the array as a tensor there; to a GPU from pinned memory, so that the copy does not hold up the host."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
