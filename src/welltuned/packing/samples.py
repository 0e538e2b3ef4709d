"""What initialisations learn from the first training rows: the gradient of every adapted weight, and its inputs.

A trial's rows are the first of its own subset, so that what it starts from does not depend on its pack. Both are taken
at the base, without adapters, in one pass over the rows: the gradient of their mean loss (LoRA-GA), in the base's
dtype, and the covariance of the inputs at target tokens (EVA). They take the memory of the adapted weights once
more, and I x I numbers for each site.
Shape letters: K target positions of all rows, I in, O out.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack

import numpy as np
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from welltuned import data
from welltuned.methods._method import Context, Method
from welltuned.models import quantised
from welltuned.models.base import Base
from welltuned.objectives import causal_lm
from welltuned.packing.batch import Block, RowTable
from welltuned.records import Trial

TOKENS_PER_PASS = 2048  # padded tokens of one forward and backward pass; assumed


def rows_of(trial: Trial, method: Method, table: RowTable | None) -> tuple[int, ...]:
    """Return the rows that the trial's initialisation looks at; none where it looks at the weight alone."""
    if not method.samples:
        return ()
    assert table is not None, f"{trial.config.method} starts from training rows, and there are none here"
    return tuple(data.subset(trial.config, len(table.lengths))[: method.samples].tolist())


def contexts(base: Base, table: RowTable | None, rows: Sequence[int]) -> Mapping[str, Context]:
    """Return what is known of every site, from these rows of the table where there are any."""
    shapes = [base.shape(site) for site in base.sites]
    largest_out, largest_in = (max(sizes) for sizes in zip(*shapes, strict=True))
    if not rows:
        return dict.fromkeys(base.sites, Context(largest_out, largest_in))
    assert table is not None
    gradients, covariances = _observe(base, table, np.array(rows))
    return {site: Context(largest_out, largest_in, gradients[site], covariances[site]) for site in base.sites}


def _observe(base: Base, table: RowTable, rows: np.ndarray) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the gradient [O, I] of the mean loss, and the inputs' covariance [I, I], of every site."""
    inputs = {site: _Inputs() for site in base.sites}
    num_targets = int(table.num_targets[rows].sum())
    width = max(1, TOKENS_PER_PASS // int(table.lengths[rows].max()))
    with torch.enable_grad(), ExitStack() as stack:
        weights = stack.enter_context(quantised.differentiable(base.sites))
        sums = {site: torch.zeros_like(weight) for site, weight in weights.items()}
        for site, module in base.sites.items():
            stack.callback(module.register_forward_pre_hook(inputs[site]).remove)
        for first in range(0, len(rows), width):
            block = table.block([rows[first : first + width]], len(rows[first : first + width]))
            for observer in inputs.values():
                observer.positions_K = block.positions_K + 1  # of the target tokens themselves
            gradients = torch.autograd.grad(_mean_loss(base, block, num_targets), list(weights.values()))
            for total, gradient in zip(sums.values(), gradients, strict=True):
                total += gradient
    is_turned = {site: isinstance(module, Conv1D) for site, module in base.sites.items()}
    turned = {site: total.T if is_turned[site] else total for site, total in sums.items()}
    return turned, {site: observer.covariance() for site, observer in inputs.items()}


def _mean_loss(base: Base, block: Block, num_targets: int) -> Tensor:
    chosen_KF = base.features(block.ids_RT).flatten(0, 1).index_select(0, block.positions_K)
    dtype = torch.promote_types(base.dtype, torch.float32)
    weights_K = torch.full((len(block.targets_K),), 1 / num_targets, dtype=dtype, device=base.device)
    return causal_lm.weighted_loss(chosen_KF, base.head, block.targets_K, weights_K, base.vocab_size)[0]


class _Inputs:
    """A forward hook that adds up a site's inputs at target tokens, and their products, in float64."""

    def __init__(self) -> None:
        self.positions_K: Tensor | None = None
        self.count = 0
        self.sum_I: Tensor | float = 0.0
        self.products_II: Tensor | float = 0.0

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        """Take in the inputs of one pass."""
        del module
        assert self.positions_K is not None
        x_KI = inputs[0].detach().flatten(0, -2).index_select(0, self.positions_K).double()
        self.count += len(x_KI)
        self.sum_I = self.sum_I + x_KI.sum(0)
        self.products_II = self.products_II + x_KI.T @ x_KI

    def covariance(self) -> Tensor:
        """Return the covariance of all inputs seen, [I, I]."""
        assert isinstance(self.sum_I, Tensor) and isinstance(self.products_II, Tensor)
        mean_I = self.sum_I / self.count
        return self.products_II / self.count - mean_I[:, None] * mean_I
