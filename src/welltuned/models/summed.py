"""A frozen linear layer's output with a change added before the sum is rounded: W x + bias + change.

In bfloat16 an output is rounded to 8 bits. What adapters add early in training, or at a low learning rate, is smaller
than half of the last of them, and is lost where it is added to an output that has been rounded already: of changes
with 1/1000 of the output's size 52 % are kept on average. Here the product is added to the change, in the
accumulators of the matmul, which keeps all of it (measured: docs/decisions/0042-one-rounding.md); it also saves a pass
over memory. Shape letters: N trials, S token slots, I in, O out.
"""

from typing import Any

import torch
from torch import Tensor, nn

from welltuned.models.quantised import QuantisedLinear, dequantised, product, weight_of


def summed(module: nn.Module, x_NSI: Tensor, change_NSO: Tensor, product_NSO: Tensor | None = None) -> Tensor:
    """Return W x + bias + change, written over the change. `product_NSO` is W x where it has been computed already.

    With a change of zeros it is `bare(module, x)` to the bit.
    """
    bias_O, is_wide = _bias(module), _is_wide(change_NSO.dtype)
    if bias_O is None and is_wide and product_NSO is not None:
        return change_NSO.add_(product_NSO)
    if bias_O is not None and is_wide:
        change_NSO = change_NSO.add_(bias_O)
    held = (module.stored, module.scale) if isinstance(module, QuantisedLinear) else (weight_of(module), None)
    y_NSO = _Sum.apply(change_NSO.contiguous(), x_NSI, *held)
    assert isinstance(y_NSO, Tensor)
    return y_NSO if bias_O is None or is_wide else y_NSO.add_(bias_O)


def bare(module: nn.Module, x: Tensor) -> Tensor:
    """Return W x + bias for x [..., I], rounded as `summed` does it.

    A bias is added to the rounded product in bfloat16, not to the change, which would be lost beside a large bias.
    """
    bias_O = _bias(module)
    return module(x) if bias_O is None or _is_wide(x.dtype) else product(module, x) + bias_O


def _bias(module: nn.Module) -> Tensor | None:
    bias_O = module.bias
    assert bias_O is None or isinstance(bias_O, Tensor)
    return bias_O


def _is_wide(dtype: torch.dtype) -> bool:
    """Say that what one rounding loses is too little to matter."""
    return dtype in (torch.float32, torch.float64)


class _Sum(torch.autograd.Function):
    """The change plus x W^T, in the change's place; of a base in 8 bits no dense weight is kept.

    An operator of its own, since PyTorch's `addmm_` on a view would copy gradients (16 % of a step in float32).
    """

    @staticmethod
    def forward(ctx: Any, change_NSO: Tensor, x_NSI: Tensor, held_OI: Tensor, scale_O: Tensor | None) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the change, written over; `scale_O` belongs to a weight in 8 bits."""
        ctx.save_for_backward(held_OI, scale_O)
        ctx.mark_dirty(change_NSO)
        change_NSO.flatten(0, -2).addmm_(x_NSI.flatten(0, -2), _dense(held_OI, scale_O, x_NSI.dtype).mT)
        return change_NSO

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the gradients of the change and of x; the weight is frozen."""
        held_OI, scale_O = ctx.saved_tensors
        dx_NSI = gradient @ _dense(held_OI, scale_O, gradient.dtype) if ctx.needs_input_grad[1] else None
        return gradient, dx_NSI, None, None


def _dense(held_OI: Tensor, scale_O: Tensor | None, dtype: torch.dtype) -> Tensor:
    return held_OI if scale_O is None else dequantised(held_OI, scale_O, dtype)
