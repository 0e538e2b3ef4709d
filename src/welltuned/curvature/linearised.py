"""A model, linearised at one point for some rows: what a change of some sites' outputs does to loss and gradient.

Write y_s for the output of a site s, e_s for a change that is added to it (zero here), h for what the head reads at the
target positions, and l(h) for the mean loss. One graph holds the gradient d_s = dl/de_s as a function of e. With
J = dh/de_s and r = dl/dh, which is a function of h whose derivative is l'',

    (d d_s / d e)^T e = H_s e            the change of the gradient: the Hessian in e_s times e
    (d d_s / d r)^T e = J e              the change of h
    J^T l''(h) J e                       the Gauss-Newton part of H_s e

so both take two backward passes, through graphs that are built once. They take N changes at a time
(`is_grads_batched`), each of its own site: N recurrences cost one pass, and the forward and backward passes at the
point itself are shared. Every method starts as the base, so at the start all methods share one point.
Shape letters: N changes, R rows, T tokens, O out, K target positions of all rows, F features, V vocabulary.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from welltuned.methods._method import Frozen
from welltuned.models.base import Base
from welltuned.objectives import causal_lm
from welltuned.packing.batch import Block
from welltuned.packing.linear import PackedLinear, PackedModel
from welltuned.packing.state import PackState

HEAD_NUMBERS = 1 << 21  # logits at a time for each of N changes, 8 MB in float32; assumed


@dataclass(frozen=True)
class Seen:
    """What a site has seen of the rows, [R, T, ..], and the gradient of the loss at its output."""

    x: Tensor
    adapted: Tensor  # with the adapters at the point
    d: Tensor
    frozen: Frozen


class Linearised:
    """The graphs of some rows at a point (a state of one trial, or None: the base), for changes of some sites."""

    def __init__(
        self, model: PackedModel, state: PackState | None, block: Block, sites: Sequence[str], num_targets: int
    ) -> None:
        self.base, self.sites = model.base, tuple(sites)
        self._weight = 1 / num_targets
        probes = {site: _Probe() for site in sites}
        hooks = [model.linears[site].register_forward_hook(probe) for site, probe in probes.items()]
        try:
            # the fused attention kernels have no second derivative
            with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), model.bound(state):
                features = model.base.features(block.ids_RT)
                self._h_KF = features.flatten(0, 1).index_select(0, block.positions_K)
        finally:
            for hook in hooks:
                hook.remove()
        self._changes = [probes[site].change for site in sites]
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            self._r_KF, self.loss = loss_gradient(self._h_KF, self.base, block.targets_K, self._weight)
            self._d = torch.autograd.grad(self._h_KF, self._changes, self._r_KF, create_graph=True)
        self.seen: Mapping[str, Seen] = {
            site: probes[site].seen(model.linears[site], d) for site, d in zip(sites, self._d, strict=True)
        }

    def hessian(self, changes: Sequence[Tensor]) -> Sequence[Tensor]:
        """Return the change of d_s, [N, R, T, O] for each site, that N changes of the outputs make."""
        return self._pass(self._d, self._changes, changes)

    def gauss_newton(self, changes: Sequence[Tensor]) -> Sequence[Tensor]:
        """Return the part of it that the curvature of the loss in the logits makes."""
        (moved_NKF,) = self._pass(self._d, [self._r_KF], changes)
        bent_NKF = loss_curvature(self.base, self._h_KF.detach(), moved_NKF, self._weight)
        return self._pass([self._h_KF], self._changes, [bent_NKF])

    @staticmethod
    def _pass(outputs: Sequence[Tensor], inputs: Sequence[Tensor], vectors: Sequence[Tensor]) -> Sequence[Tensor]:
        return torch.autograd.grad(outputs, inputs, list(vectors), retain_graph=True, is_grads_batched=True)


class _LossGradient(torch.autograd.Function):
    """r = dl/dh as a function of h, computed over few logits at a time; its derivative is l''. Also returns l."""

    @staticmethod
    def forward(ctx, h_KF: Tensor, base: Base, targets_K: Tensor, weight: float) -> tuple[Tensor, Tensor]:
        """Return r and the loss."""
        ctx.save_for_backward(h_KF)
        ctx.base, ctx.weight = base, weight
        leaf_KF = h_KF.detach().requires_grad_()
        weights_K = torch.full((len(targets_K),), weight, dtype=h_KF.dtype, device=h_KF.device)
        with torch.enable_grad():
            loss, _ = causal_lm.weighted_loss(leaf_KF, base.head, targets_K, weights_K, base.vocab_size)
        (r_KF,) = torch.autograd.grad(loss, leaf_KF)
        loss = loss.detach()
        ctx.mark_non_differentiable(loss)
        return r_KF, loss

    @staticmethod
    def backward(ctx, *output_gradients: Tensor):
        """Return l'' times a vector."""
        (h_KF,) = ctx.saved_tensors
        return loss_curvature(ctx.base, h_KF.detach(), output_gradients[0], ctx.weight), None, None, None


class _Probe:
    """A forward hook that adds e_s = 0 to a site's output and remembers its input and output."""

    def __init__(self) -> None:
        self.change = self._x = self._adapted = torch.empty(0)

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """Take in what the site sees."""
        del module
        self._x, self._adapted = inputs[0].detach(), output.detach()
        self.change = torch.zeros_like(output, requires_grad=True)
        return output + self.change

    def seen(self, linear: PackedLinear, d: Tensor) -> Seen:
        """Return what the site has seen, with the gradient at its output."""
        return Seen(self._x, self._adapted, d.detach(), linear.frozen())


def loss_gradient(h_KF: Tensor, base: Base, targets_K: Tensor, weight: float) -> tuple[Tensor, Tensor]:
    """Return dl/dh, which can be differentiated by h, and l = weight times the summed cross entropy."""
    return _LossGradient.apply(h_KF, base, targets_K, weight)


def loss_curvature(base: Base, h_KF: Tensor, change_KF: Tensor, weight: float) -> Tensor:
    """Return l''(h) times a change of h ([K, F], or N of them), for l = weight times the summed cross entropy.

    With p the softmax of the logits z = U h + b, l'' = weight U^T (diag(p) - p p^T) U at each target position.
    """
    head = base.head
    assert isinstance(head, nn.Linear | nn.Identity), "the head of a causal language model is one matrix"
    parts = []
    rows = max(1, HEAD_NUMBERS // base.vocab_size)
    with torch.no_grad():
        for h, change in zip(h_KF.split(rows), change_KF.split(rows, dim=-2), strict=True):
            p_KV = head(h).softmax(-1)
            moved_KV = change @ head.weight.T if isinstance(head, nn.Linear) else change
            bent_KV = weight * p_KV * (moved_KV - (p_KV * moved_KV).sum(-1, keepdim=True))
            parts.append(bent_KV @ head.weight if isinstance(head, nn.Linear) else bent_KV)
    return torch.cat(parts, dim=-2)
