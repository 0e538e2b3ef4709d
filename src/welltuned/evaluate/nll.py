"""Held-out loss of all trials of a pack at once, in nats for each target token.

Shape letters: N trials, M rows of a trial, K target positions, trial-major.
"""

import numpy as np
import torch
from torch import Tensor

from welltuned.objectives import causal_lm
from welltuned.packing.batch import RowTable
from welltuned.packing.linear import PackedModel
from welltuned.packing.state import PackState

TOKENS_PER_PASS = 16_384  # padded tokens of one forward pass; assumed, to be measured


def sums(loss_K: Tensor, trial_K: Tensor, num_trials: int) -> Tensor:
    """Return each trial's sum of losses, [N], in float64, added in the same order every time on every device."""
    counts_N = torch.bincount(trial_K, minlength=num_trials)
    return torch.segment_reduce(loss_K.double(), "sum", lengths=counts_N, initial=0.0)


def validation_nll(
    model: PackedModel, state: PackState | None, table: RowTable, rows: np.ndarray | None = None
) -> list[float]:
    """Return each trial's mean loss over all target tokens of the table's rows, or of some (one for the bare base)."""
    chosen = np.arange(len(table.lengths)) if rows is None else rows
    num_trials = 1 if state is None else state.num_trials
    total_N = torch.zeros(num_trials, dtype=torch.float64, device=table.device)
    order = chosen[np.argsort(-table.lengths[chosen], kind="stable")]  # rows of equal length together: less padding
    first = 0
    while first < len(order):
        width = max(1, TOKENS_PER_PASS // (num_trials * int(table.lengths[order[first]])))
        rows = order[first : first + width]
        first += len(rows)
        block = table.block([rows] * num_trials, len(rows))
        with torch.no_grad(), model.bound(state):
            features = model.base.features(block.ids_RT)
            chosen_KF = features.flatten(0, 1).index_select(0, block.positions_K)
            loss_K = causal_lm.losses(chosen_KF, model.base.head, block.targets_K, model.base.vocab_size)
        total_N += sums(loss_K, block.row_K // len(rows), num_trials)
    return (total_N / int(table.num_targets[chosen].sum())).tolist()
