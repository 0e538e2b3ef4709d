"""LoRA with Init[A]: A ~ U(-1/sqrt(n), 1/sqrt(n)) (Kaiming uniform with a = sqrt 5, PEFT's default), B = 0.

Hu et al. 2021, arXiv 2106.09685, section 4.1; the distribution is that of the authors' code and of PEFT.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from welltuned.methods._draw import uniform, zeros
from welltuned.methods._low_rank import num_trainable, plain
from welltuned.methods._method import Method, State

if TYPE_CHECKING:
    from torch import Generator, Tensor


def init(W_OI: Tensor, analysis: Any, rank: int, scaling: float, generator: Generator) -> State:
    """Return A [R, I], uniform with variance 1/(3 I), and B = 0 [O, R]."""
    del analysis, scaling
    num_out, num_in = W_OI.shape
    return {"A": uniform((rank, num_in), num_in**-0.5, generator, W_OI), "B": zeros((num_out, rank), W_OI)}


METHOD = Method(
    summary="LoRA: random A, zero B",
    paper="Hu et al. 2021, arXiv 2106.09685",
    formula="y = W x + s B A x;  A ~ U(-1/sqrt(n), 1/sqrt(n)), B = 0",
    version=2,
    uses_rank=True,
    deterministic=False,
    parametrisation=plain,
    num_trainable=num_trainable,
    init=init,
    trains="A, B",
    peft="LoraConfig()",
    advice="about 10 times that of full fine-tuning (LoRA Without Regret, 2025); with alpha = r it falls with the rank "
    "as r^-1/2 (arXiv 2602.06204)",
)
