"""Random factors, drawn in float64 on the CPU, so that a seed means the same numbers in any dtype and on any device."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Generator, Tensor


def dtype_of(W_OI: Tensor) -> torch.dtype:
    """Return the dtype of factors on a weight: float64 for a float64 one, else float32."""
    import torch

    return torch.float64 if W_OI.dtype == torch.float64 else torch.float32


def uniform(shape: tuple[int, ...], bound: float, generator: Generator, W_OI: Tensor) -> Tensor:
    """Return numbers from U(-bound, bound), for factors on the weight."""
    import torch

    numbers = (2 * torch.rand(shape, generator=generator, dtype=torch.float64) - 1) * bound
    return numbers.to(W_OI.device, dtype_of(W_OI))


def normal(shape: tuple[int, ...], std: float, generator: Generator, W_OI: Tensor) -> Tensor:
    """Return numbers from N(0, std^2), for factors on the weight."""
    import torch

    numbers = torch.randn(shape, generator=generator, dtype=torch.float64) * std
    return numbers.to(W_OI.device, dtype_of(W_OI))


def zeros(shape: tuple[int, ...], W_OI: Tensor) -> Tensor:
    """Return zeros, for factors on the weight."""
    import torch

    return torch.zeros(shape, dtype=dtype_of(W_OI), device=W_OI.device)
