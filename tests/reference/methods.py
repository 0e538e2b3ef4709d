"""Each method in its published form, unfused, on a copy of W: the reference of the packed trainer.

In-place residual forms (PiSSA, MiLoRA) subtract s B0 A0 from the copied weight and train A and B themselves, as
published.
"""

import torch
from torch import nn


class LowRankLinear(nn.Module):
    """y = W' x + b + s B (A x), with A and B trained and W' frozen."""

    def __init__(self, weight, bias, A, B, scaling):
        super().__init__()
        self.weight, self.bias, self.scaling = weight, bias, scaling
        self.A, self.B = nn.Parameter(A), nn.Parameter(B)

    def forward(self, x):
        y = nn.functional.linear(x, self.weight, self.bias)
        return y + self.scaling * nn.functional.linear(nn.functional.linear(x, self.A), self.B)


class FullLinear(nn.Module):
    """y = W x + b with W trained."""

    def __init__(self, weight, bias):
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), bias

    def forward(self, x):
        return nn.functional.linear(x, self.weight, self.bias)


def adapted(method, weight, bias, rank, scaling, lora_A=None):
    """Return the method's module on a copy of `weight` [O, I]; `lora_A` is the random A of plain LoRA."""
    weight = weight.clone()
    if method == "full":
        return FullLinear(weight, bias)
    if method == "lora":
        return LowRankLinear(
            weight, bias, lora_A.clone(), torch.zeros(weight.shape[0], rank, dtype=weight.dtype), scaling
        )
    U, S, Vh = torch.linalg.svd(weight, full_matrices=False)
    pick = slice(0, rank) if method == "pissa" else slice(len(S) - rank, len(S))
    root = torch.sqrt(S[pick] / scaling)
    A, B = torch.diag(root) @ Vh[pick], U[:, pick] @ torch.diag(root)
    return LowRankLinear(weight - scaling * B @ A, bias, A, B, scaling)
