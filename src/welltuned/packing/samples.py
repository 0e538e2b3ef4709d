"""What initialisations learn from the first training rows: the gradient of every adapted weight, and its inputs.

A trial's rows are the first of its own subset, so that what it starts from does not depend on its pack. Both are taken
at the base, without adapters, in one pass over the rows: the gradient of their mean loss (LoRA-GA), in the base's
dtype, and the covariance of the inputs at target tokens (EVA). A method is given the one that it asks for. As many
sites are looked at in one pass as `SEEN_NUMBERS` hold, and what was seen is dropped before the next ones: a large
base takes more passes and not more memory.
Shape letters: K target positions of all rows, I in, O out.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from welltuned import data
from welltuned.costs.memory import SEEN_NUMBERS
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


class Look(NamedTuple):
    """What trials' initialisations look at: rows, and "gradient" or "inputs"; no rows where at the weight alone."""

    rows: tuple[int, ...]
    at: str


def look_of(trial: Trial, method: Method, table: RowTable | None) -> Look:
    """Return what a trial's initialisation looks at."""
    return Look(rows_of(trial, method, table), method.looks_at)


def parts(base: Base, looks: Collection[Look]) -> Iterator[list[str]]:
    """Yield the sites in parts, as many at a time as `SEEN_NUMBERS` hold for all looks together."""
    part: list[str] = []
    held = 0
    for site in base.sites:
        num_out, num_in = base.shape(site)
        needed = sum({"gradient": num_out * num_in, "inputs": num_in**2}[look.at] for look in looks if look.rows)
        if part and held + needed > SEEN_NUMBERS:
            yield part
            part, held = [], 0
        part.append(site)
        held += needed
    yield part


def contexts(base: Base, table: RowTable | None, look: Look, sites: Sequence[str]) -> Mapping[str, Context]:
    """Return what is known of these sites, from the rows of the table that are looked at, if any."""
    shapes = [base.shape(site) for site in base.sites]
    largest_out, largest_in = (max(sizes) for sizes in zip(*shapes, strict=True))
    if not look.rows:
        return dict.fromkeys(sites, Context(largest_out, largest_in))
    assert table is not None
    rows = np.array(look.rows)
    if look.at == "gradient":
        gradients = _gradients(base, table, rows, sites)
        return {site: Context(largest_out, largest_in, gradient_OI=gradients[site]) for site in sites}
    covariances = _covariances(base, table, rows, sites)
    return {site: Context(largest_out, largest_in, covariance_II=covariances[site]) for site in sites}


def _gradients(base: Base, table: RowTable, rows: np.ndarray, sites: Sequence[str]) -> dict[str, Tensor]:
    """Return the gradient [O, I] of the mean loss by the weight of every site."""
    num_targets = int(table.num_targets[rows].sum())
    with torch.enable_grad(), ExitStack() as stack:
        weights = stack.enter_context(quantised.differentiable({site: base.sites[site] for site in sites}))
        sums = {site: torch.zeros_like(weight) for site, weight in weights.items()}
        for block in _passes(table, rows):
            gradients = torch.autograd.grad(_mean_loss(base, block, num_targets), list(weights.values()))
            for total, gradient in zip(sums.values(), gradients, strict=True):
                total += gradient
    is_turned = {site: isinstance(base.sites[site], Conv1D) for site in sites}
    return {site: total.T if is_turned[site] else total for site, total in sums.items()}


def _covariances(base: Base, table: RowTable, rows: np.ndarray, sites: Sequence[str]) -> dict[str, Tensor]:
    """Return the covariance [I, I] of the inputs of every site."""
    inputs = {site: _Inputs() for site in sites}
    with torch.no_grad(), ExitStack() as stack:
        for site in sites:
            stack.callback(base.in_place(site).register_forward_pre_hook(inputs[site]).remove)
        for block in _passes(table, rows):
            for observer in inputs.values():
                observer.positions_K = block.positions_K + 1  # of the target tokens themselves
            base.features(block.ids_RT)
    return {site: observer.covariance() for site, observer in inputs.items()}


def _passes(table: RowTable, rows: np.ndarray) -> Iterator[Block]:
    """Yield the rows as blocks of a few at a time."""
    width = max(1, TOKENS_PER_PASS // int(table.lengths[rows].max()))
    for first in range(0, len(rows), width):
        yield table.block([rows[first : first + width]], len(rows[first : first + width]))


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
