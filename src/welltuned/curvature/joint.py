"""The Hessian in all trained tensors of a trial at once, for the N trials of a pack: plain double backward.

What one learning rate meets is this matrix: its largest eigenvalue is at least that of any block. The trials of a pack
share no number, so that the gradient of their summed losses, differentiated along N vectors, gives N products. It is
also the slow and obvious twin of blocks.py: a block of it is that block.
Shape letters: N trials, P numbers of a trial padded to the longest, R rows, K target positions of all rows, F features.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from welltuned.curvature.blocks import Gradients, Saved, gradients, padded
from welltuned.curvature.linearised import loss_curvature, loss_gradient
from welltuned.curvature.rows import Rows, Spread
from welltuned.packing.linear import PackedModel
from welltuned.packing.state import PackState

Through = Callable[["_Graph", Sequence[Tensor]], Sequence[Tensor]]


class Joint:
    """All trained tensors of each trial of a state."""

    def __init__(self, model: PackedModel, state: PackState, rows: Rows, graph_bytes: int) -> None:
        self.model, self.state, self.rows = model, state, rows
        self.num_blocks = state.num_trials
        masks = [torch.cat([group.own(site) for site in group.leaves], dim=1) for group in state.groups]
        self.length = max(mask.shape[1] for mask in masks)
        self.own_NP = torch.cat([padded(mask, self.length) for mask in masks])
        saved = Saved(model.base.model)
        with saved.counting():
            _Graph(model, state.select([0]), rows, [rows.longest])
        self._most = max(1, graph_bytes // max(1, saved.num_bytes))  # rows whose graphs fit, of all trials together

    def gradients(self) -> Gradients:
        """Return the gradients and their spread over the rows: each row is given a copy of its trial."""
        spreads = [Spread(len(self.rows.numbers), own_P) for own_P in self.own_NP]
        for number, spread in enumerate(spreads):
            for rows in self.rows.chunks(1, self._most):
                state = self.state.select([number] * len(rows))
                graph = _Graph(self.model, state, self.rows, [np.array([row]) for row in rows])
                spread.add(_flat(state, graph.gradients, self.length), self.rows.shares(rows))
        return gradients(spreads, self.own_NP, {})

    def hessian(self, v_NP: Tensor, numbers: Sequence[int]) -> Tensor:
        """Return H v for the trials of these numbers."""
        return self._product(v_NP, numbers, _Graph.hessian)

    def gauss_newton(self, v_NP: Tensor, numbers: Sequence[int]) -> Tensor:
        """Return the Gauss-Newton matrix times v for the trials of these numbers."""
        return self._product(v_NP, numbers, _Graph.gauss_newton)

    def _product(self, v_NP: Tensor, numbers: Sequence[int], through: Through) -> Tensor:
        parts = []
        for first in range(0, len(numbers), self._most):
            some = list(numbers)[first : first + self._most]
            state = self.state.select(some)
            vectors = _split(state, v_NP[first : first + self._most])
            result_NP = torch.zeros_like(v_NP[first : first + self._most])
            for rows in self.rows.chunks(len(some), max(1, self._most // len(some))):
                graph = _Graph(self.model, state, self.rows, [rows] * len(some))
                result_NP += _flat(state, through(graph, vectors), self.length)
            parts.append(result_NP * self.own_NP[some])
        return torch.cat(parts)


class _Graph:
    """The gradients of a pack's trials as functions of their tensors, on some rows of each."""

    def __init__(self, model: PackedModel, state: PackState, rows: Rows, of_each: Sequence[np.ndarray]) -> None:
        self.base, self.weight = model.base, 1 / rows.num_targets
        self.leaves = [leaf for group in state.groups for leaf in group.parameters()]
        block = rows.table.block(of_each, len(of_each[0]))
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), model.bound(state):
            features = model.base.features(block.ids_RT)
            self.h_KF = features.flatten(0, 1).index_select(0, block.positions_K)
            self.r_KF, _ = loss_gradient(self.h_KF, self.base, block.targets_K, self.weight)
            self.gradients = torch.autograd.grad(self.h_KF, self.leaves, self.r_KF, create_graph=True)

    def hessian(self, vectors: Sequence[Tensor]) -> Sequence[Tensor]:
        return torch.autograd.grad(self.gradients, self.leaves, vectors, materialize_grads=True)

    def gauss_newton(self, vectors: Sequence[Tensor]) -> Sequence[Tensor]:
        (moved_KF,) = torch.autograd.grad(self.gradients, self.r_KF, vectors, retain_graph=True)
        bent_KF = loss_curvature(self.base, self.h_KF.detach(), moved_KF, self.weight)
        return torch.autograd.grad(self.h_KF, self.leaves, bent_KF)


def _flat(state: PackState, tensors: Sequence[Tensor], length: int) -> Tensor:
    """Return the leaves' tensors, in their order, as one padded vector for each trial."""
    found, rest = [], list(tensors)
    for group in state.groups:
        count = len(group.parameters())
        flat_NP = torch.cat([tensor.detach().flatten(1) for tensor in rest[:count]], dim=1)
        found.append(padded(flat_NP, length))
        rest = rest[count:]
    return torch.cat(found)


def _split(state: PackState, v_NP: Tensor) -> list[Tensor]:
    """Return one padded vector for each trial as the leaves' tensors."""
    found: list[Tensor] = []
    for group in state.groups:
        leaves = group.parameters()
        sizes = [leaf[0].numel() for leaf in leaves]
        parts = v_NP[group.start : group.stop, : sum(sizes)].split(sizes, dim=1)
        found += [part.reshape(leaf.shape) for part, leaf in zip(parts, leaves, strict=True)]
    return found
