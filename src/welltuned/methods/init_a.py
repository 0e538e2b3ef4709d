"""Init[A] as muA defines it: LoRA with A ~ N(0, 1/n), n the site's inputs, and B = 0.

Chen, Villar and Hayou 2026, arXiv 2602.06204. Three times the variance of `lora`; PEFT's "gaussian" is another one, of
standard deviation 1/r.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from welltuned.methods._draw import normal, zeros
from welltuned.methods._low_rank import num_trainable, plain
from welltuned.methods._method import Method, State

if TYPE_CHECKING:
    from torch import Generator, Tensor


def init(W_OI: Tensor, analysis: Any, rank: int, scaling: float, generator: Generator) -> State:
    """Return A [R, I], normal with variance 1/I, and B = 0 [O, R]."""
    del analysis, scaling
    num_out, num_in = W_OI.shape
    return {"A": normal((rank, num_in), num_in**-0.5, generator, W_OI), "B": zeros((num_out, rank), W_OI)}


METHOD = Method(
    summary="Init[A]: LoRA with normal A, zero B",
    paper="Chen, Villar and Hayou 2026, arXiv 2602.06204",
    formula="y = W x + s B A x;  A ~ N(0, 1/n), B = 0",
    version=2,
    uses_rank=True,
    deterministic=False,
    parametrisation=plain,
    num_trainable=num_trainable,
    init=init,
    trains="A, B",
    advice="as LoRA's: (s n r)^-1/2 up to a constant (arXiv 2602.06204)",
)
