"""LoRA with Init[A]: A ~ U(-1/sqrt(n), 1/sqrt(n)) (Kaiming uniform with a = sqrt 5, PEFT's default), B = 0.

Hu et al. 2021, arXiv 2106.09685, section 4.1; the distribution is that of the authors' code and of PEFT.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from welltuned.methods._low_rank import num_trainable, plain
from welltuned.methods._method import Method, State

if TYPE_CHECKING:
    from torch import Generator, Tensor


def init(W_OI: Tensor, analysis: Any, rank: int, scaling: float, generator: Generator) -> State:
    """Return A [R, I], uniform with variance 1/(3 I), and B = 0 [O, R]."""
    import torch

    del analysis, scaling
    num_out, num_in = W_OI.shape
    dtype = torch.float64 if W_OI.dtype == torch.float64 else torch.float32
    uniform_RI = torch.rand(rank, num_in, generator=generator, dtype=torch.float64)
    A_RI = (2 * uniform_RI - 1) / num_in**0.5
    return {"A": A_RI.to(W_OI.device, dtype), "B": torch.zeros(num_out, rank, dtype=dtype, device=W_OI.device)}


METHOD = Method(
    summary="LoRA: random A, zero B",
    paper="Hu et al. 2021, arXiv 2106.09685",
    formula="y = W x + s B A x;  A ~ U(-1/sqrt(n), 1/sqrt(n)), B = 0",
    version=1,
    uses_rank=True,
    deterministic=False,
    parametrisation=plain,
    num_trainable=num_trainable,
    init=init,
)
