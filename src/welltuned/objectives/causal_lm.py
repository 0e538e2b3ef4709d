"""Causal language modelling: cross entropy of the target tokens, the head applied at target positions only, in chunks.

The logits of a large vocabulary are the largest tensor of a step; here at most `CPU_NUMBERS` or `GPU_NUMBERS` of them
exist at a time: each chunk's gradient is taken at once and only that of the hidden states is kept, and that of the
head's weights where these are trained. Shape letters: K target positions of all rows, H hidden, V vocabulary.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

CPU_NUMBERS = 1 << 22  # logits at a time, 16 MB in float32, so that they stay in the processor's cache; assumed
GPU_NUMBERS = 1 << 26  # 256 MB: the head is read anew for every chunk, which a small one does not pay for; assumed

Head = Callable[[Tensor], Tensor]


class _WeightedCrossEntropy(torch.autograd.Function):
    """Sum over K of weight_K * cross_entropy_K as a function of hidden_KH and the head; returns each of them, too."""

    @staticmethod
    def forward(ctx, hidden_KH: Tensor, head: Head, targets_K: Tensor, weights_K: Tensor, rows: int, *trained: Tensor):
        losses, gradients = [], []
        sums = [torch.zeros_like(weight, dtype=torch.promote_types(weight.dtype, torch.float32)) for weight in trained]
        parts = (hidden_KH.split(rows), targets_K.split(rows), weights_K.split(rows))
        for hidden, targets, weights in zip(*parts, strict=True):
            hidden = hidden.detach().requires_grad_()
            with torch.enable_grad():
                logits_KV = head(hidden)
            loss, logits_gradient = _loss_and_gradient(logits_KV.detach(), targets, weights)
            gradient, *others = torch.autograd.grad(logits_KV, [hidden, *trained], logits_gradient)
            for total, other in zip(sums, others, strict=True):
                total += other
            losses.append(loss)
            gradients.append(gradient)
        ctx.save_for_backward(
            torch.cat(gradients), *(total.to(weight) for total, weight in zip(sums, trained, strict=True))
        )
        loss_K = torch.cat(losses)
        ctx.mark_non_differentiable(loss_K)
        return (loss_K * weights_K).sum(), loss_K

    @staticmethod
    def backward(ctx, *output_gradients):
        gradient_KH, *others = ctx.saved_tensors
        scale = output_gradients[0]
        return gradient_KH * scale, None, None, None, None, *(gradient * scale for gradient in others)


def _rows(hidden_KH: Tensor, vocab: int) -> int:
    """Return the number of target positions of a chunk."""
    return max(1, (CPU_NUMBERS if hidden_KH.device.type == "cpu" else GPU_NUMBERS) // vocab)


def _loss_and_gradient(logits_KV: Tensor, targets_K: Tensor, weights_K: Tensor) -> tuple[Tensor, Tensor]:
    """Return the losses [K] and weight * (softmax - one-hot), the gradient of their sum, in few passes."""
    wide_KV = _wide(logits_KV)
    total_K = wide_KV.logsumexp(dim=1)
    loss_K = total_K - wide_KV.gather(1, targets_K[:, None])[:, 0]
    scale_K = weights_K.log() - total_K
    gradient_KV = wide_KV.add(scale_K[:, None]).exp_()
    gradient_KV[torch.arange(len(targets_K), device=targets_K.device), targets_K] -= weights_K
    return loss_K, gradient_KV.to(logits_KV.dtype)


def _wide(logits_KV: Tensor) -> Tensor:
    """Return the logits in float32 or better."""
    return logits_KV if logits_KV.dtype == torch.float64 else logits_KV.float()


def weighted_loss(
    hidden_KH: Tensor, head: Head, targets_K: Tensor, weights_K: Tensor, vocab: int
) -> tuple[Tensor, Tensor]:
    """Return the scalar sum_K weight * loss, to call backward on, and the losses [K] in nats."""
    parameters = head.parameters() if isinstance(head, nn.Module) else ()
    trained = [weight for weight in parameters if weight.requires_grad]
    return _WeightedCrossEntropy.apply(hidden_KH, head, targets_K, weights_K, _rows(hidden_KH, vocab), *trained)


def losses(hidden_KH: Tensor, head: Head, targets_K: Tensor, vocab: int) -> Tensor:
    """Return the losses [K] in nats, without gradients."""
    rows = _rows(hidden_KH, vocab)
    with torch.no_grad():
        parts = zip(hidden_KH.split(rows), targets_K.split(rows), strict=True)
        return torch.cat(
            [
                torch.nn.functional.cross_entropy(_wide(head(hidden)), targets, reduction="none")
                for hidden, targets in parts
            ]
        )
