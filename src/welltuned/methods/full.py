"""Full fine-tuning of the adapted sites, as one more method: a trained difference dW on the shared, read-only W.

y = W x + dW x, with weight decay acting on W + dW: the function, gradients and decay of training W itself.
Shape letters: N trials, S token slots, I in, O out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from welltuned.methods._method import Frozen, Method, Parametrisation, State

if TYPE_CHECKING:
    from torch import Generator, Tensor


def init(W_OI: Tensor, analysis: Any, rank: int, scaling: float, generator: Generator) -> State:
    """Return dW = 0 [O, I]."""
    import torch

    del analysis, rank, scaling, generator
    return {"dW": torch.zeros_like(W_OI, dtype=torch.promote_types(W_OI.dtype, torch.float32))}


def _shape(name: str, num_out: int, num_in: int, rank: int) -> tuple[int, ...]:
    del name, rank
    return num_out, num_in


def _apply(x_NSI: Tensor, state: Mapping[str, Tensor], scaling_N: Tensor, frozen: Frozen) -> Tensor:
    import torch

    del scaling_N, frozen
    return torch.bmm(x_NSI, state["dW"].to(x_NSI.dtype).mT)


def _delta(state: Mapping[str, Tensor], scaling: float, W_OI: Tensor) -> Tensor:
    del scaling, W_OI
    return state["dW"]


def parametrisation() -> Parametrisation:
    """Return the parametrisation with one trained tensor, dW [O, I]; its decay acts on the base weight plus dW."""
    return Parametrisation("delta", ("dW",), (), _shape, _apply, {"dW": "base"}, _delta)


def _num_trainable(num_out: int, num_in: int, rank: int) -> int:
    del rank
    return num_out * num_in


METHOD = Method(
    summary="Full fine-tuning of the adapted sites",
    paper="none: the baseline that LoRA approximates",
    formula="y = (W + dW) x;  dW = 0",
    version=2,
    uses_rank=False,
    deterministic=True,
    parametrisation=parametrisation,
    num_trainable=_num_trainable,
    init=init,
    uses_alpha=False,
    trains="dW, the size of W",
    advice="about a tenth of LoRA's (LoRA Without Regret, 2025)",
)
