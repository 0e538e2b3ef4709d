"""A frozen linear layer whose weight is held in 8 bits: half of the memory of bfloat16, a quarter of float32.

Symmetric, one scale for each output row (Dettmers et al. 2022, arXiv 2208.07339, equation 1, by rows and without its
outlier columns): scale_o = max_i |W_oi| / 127, stored_oi = round(W_oi / scale_o). The weight that everybody sees is
stored * scale in the dtype of the activations. It is made anew for every product, forward and backward, so that no more
than one layer's is held at a time. The base of a study is this quantised one, for every method alike: its numbers are
read-only, and step 0 is exactly it. Shape letters: O out, I in.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from welltuned.errors import InputError, problem

LARGEST = 127  # of a signed byte; -128 is not used, so that W and -W are held alike


class QuantisedLinear(nn.Module):
    """Takes the place of an `nn.Linear`; `weight` is the dequantised one, a new tensor on every call."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight_OI = linear.weight.detach()
        stored_OI, scale_O = quantise(weight_OI)
        self.stored = nn.Parameter(stored_OI, requires_grad=False)
        self.scale = nn.Parameter(scale_O, requires_grad=False)
        self.bias = linear.bias
        self.dtype = weight_OI.dtype
        self.dense: Tensor | None = None  # [O, I]; while a gradient of the weight is wanted

    @property
    def weight(self) -> Tensor:
        """Return the weight, [O, I], in the dtype that the layer had."""
        return dequantised(self.stored, self.scale, self.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Map x [..., I] to [..., O]; the bias enters as in the `nn.Linear`, within the matmul."""
        return _linear(self, x, self.bias)


class _Product(torch.autograd.Function):
    """x W^T + bias, which keeps the 8-bit weight for the backward pass and not the dequantised one."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, stored_OI: Tensor, scale_O: Tensor, bias_O: Tensor | None) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return [..., O]."""
        ctx.save_for_backward(stored_OI, scale_O)
        return nn.functional.linear(x, dequantised(stored_OI, scale_O, x.dtype), bias_O)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the gradient of x; the weight and the bias are frozen."""
        stored_OI, scale_O = ctx.saved_tensors
        return gradient @ dequantised(stored_OI, scale_O, gradient.dtype), None, None, None


def quantise(weight_OI: Tensor) -> tuple[Tensor, Tensor]:
    """Return the weight in 8 bits [O, I] and a scale for each row [O], in float32; a row of zeros stays one."""
    wide_OI = weight_OI.float()
    scale_O = wide_OI.abs().amax(1) / LARGEST
    steps_OI = wide_OI / scale_O.clamp_min(torch.finfo(torch.float32).tiny)[:, None]
    return steps_OI.round().clamp(-LARGEST, LARGEST).to(torch.int8), scale_O


def dequantised(stored_OI: Tensor, scale_O: Tensor, dtype: torch.dtype) -> Tensor:
    """Return stored * scale, computed in float32 or better and rounded once."""
    wide = torch.promote_types(dtype, torch.float32)
    return stored_OI.to(wide).mul_(scale_O.to(wide)[:, None]).to(dtype)


def hold(model: PreTrainedModel, linear: Mapping[str, nn.Module]) -> None:
    """Hold these linear layers of a model in 8 bits, one after the other, so that each frees its own memory."""
    turned = sorted(name for name, module in linear.items() if isinstance(module, Conv1D))
    if turned:
        expected = f'"none" for {type(model).__name__}, whose {turned[0]} is no nn.Linear'
        raise InputError(problem("model.quantization", "int8", expected, "remove quantization"))
    for name, module in linear.items():
        assert isinstance(module, nn.Linear)
        model.set_submodule(name, QuantisedLinear(module))


def weight_of(module: nn.Module) -> Tensor:
    """Return a linear layer's frozen weight, [O, I]."""
    if isinstance(module, QuantisedLinear):
        return module.weight
    weight = module.weight  # no parameter while another one is in its place (packing/whole.py)
    assert isinstance(weight, Tensor)
    return weight.T if isinstance(module, Conv1D) else weight


def product(module: nn.Module, x: Tensor) -> Tensor:
    """Return x W^T of a linear layer without its bias, x [..., I]; of one in 8 bits, only these are kept."""
    if isinstance(module, QuantisedLinear):
        return _linear(module, x, None)
    return nn.functional.linear(x, weight_of(module))


def _linear(module: QuantisedLinear, x: Tensor, bias_O: Tensor | None) -> Tensor:
    if module.dense is not None:
        return nn.functional.linear(x, module.dense, bias_O)
    y = _Product.apply(x, module.stored, module.scale, bias_O)
    assert isinstance(y, Tensor)
    return y


def make_dense(model: PreTrainedModel) -> None:
    """Hold every layer as an `nn.Linear` again, with the values that it has in 8 bits."""
    for name, module in list(model.named_modules()):
        if isinstance(module, QuantisedLinear):
            weight_OI = module.weight
            linear = nn.Linear(weight_OI.shape[1], weight_OI.shape[0], module.bias is not None, device="meta")
            linear.weight, linear.bias = nn.Parameter(weight_OI, requires_grad=False), module.bias
            model.set_submodule(name, linear)


def shape_of(module: nn.Module) -> tuple[int, int]:
    """Return (O, I) of a linear layer's weight."""
    num_out, num_in = (module.stored if isinstance(module, QuantisedLinear) else weight_of(module)).shape
    return num_out, num_in


@contextmanager
def differentiable(modules: Mapping[str, nn.Module]) -> Iterator[dict[str, Tensor]]:
    """Yield by name the weights as the layers use them, [O, I] (of a Conv1D [I, O]), so that gradients can be taken."""
    found: dict[str, Tensor] = {}
    try:
        for name, module in modules.items():
            if isinstance(module, QuantisedLinear):
                module.dense = found[name] = module.weight.requires_grad_()
            else:
                found[name] = module.get_parameter("weight").requires_grad_()
        yield found
    finally:
        for name, module in modules.items():
            if isinstance(module, QuantisedLinear):
                module.dense = None
            elif name in found:
                found[name].requires_grad_(False)
