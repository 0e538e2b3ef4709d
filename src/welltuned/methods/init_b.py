"""Init[B]: LoRA the other way round, B ~ N(0, 1/r) and A = 0.

Chen, Villar and Hayou 2026, arXiv 2602.06204: with s = 1 its optimal learning rate is that of full fine-tuning.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from welltuned.methods._draw import normal, zeros
from welltuned.methods._low_rank import num_trainable, plain
from welltuned.methods._method import Method, State

if TYPE_CHECKING:
    from torch import Generator, Tensor


def init(W_OI: Tensor, analysis: Any, rank: int, scaling: float, generator: Generator) -> State:
    """Return A = 0 [R, I] and B [O, R], normal with variance 1/R."""
    del analysis, scaling
    num_out, num_in = W_OI.shape
    return {"A": zeros((rank, num_in), W_OI), "B": normal((num_out, rank), rank**-0.5, generator, W_OI)}


METHOD = Method(
    summary="Init[B]: LoRA with zero A, normal B",
    paper="Chen, Villar and Hayou 2026, arXiv 2602.06204",
    formula="y = W x + s B A x;  A = 0, B ~ N(0, 1/r)",
    version=2,
    uses_rank=True,
    deterministic=False,
    parametrisation=plain,
    num_trainable=num_trainable,
    init=init,
    trains="A, B",
    advice="that of full fine-tuning where alpha = r, hence below LoRA's (arXiv 2602.06204)",
)
