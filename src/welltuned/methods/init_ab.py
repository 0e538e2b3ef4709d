"""Init[AB]: both factors random, A and B ~ U(-1/sqrt(n), 1/sqrt(n)), n the site's inputs; their product is taken off W.

"Learning Rate Matters", 2026, arXiv 2602.04998: both bounds are those of the layer's fan-in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from welltuned.methods._draw import uniform
from welltuned.methods._low_rank import anchored, num_trainable
from welltuned.methods._method import Method, State
from welltuned.methods._residual import anchored_state

if TYPE_CHECKING:
    from torch import Generator, Tensor


def init(W_OI: Tensor, analysis: Any, rank: int, scaling: float, generator: Generator) -> State:
    """Return A0 [R, I] and B0 [O, R], uniform with variance 1/(3 I); dA = dB = 0."""
    del analysis, scaling
    num_out, num_in = W_OI.shape
    A0_RI = uniform((rank, num_in), num_in**-0.5, generator, W_OI)
    return anchored_state(A0_RI, uniform((num_out, rank), num_in**-0.5, generator, W_OI))


METHOD = Method(
    summary="Init[AB]: both factors random",
    paper="Learning Rate Matters 2026, arXiv 2602.04998",
    formula="y = (W - s B0 A0) x + s B A x;  A0, B0 ~ U(-1/sqrt(n), 1/sqrt(n))",
    version=2,
    uses_rank=True,
    deterministic=False,
    parametrisation=anchored,
    num_trainable=num_trainable,
    init=init,
    trains="A, B",
    advice="as LoRA's, or up to 1.4 times lower (arXiv 2602.04998, read off its figures)",
)
