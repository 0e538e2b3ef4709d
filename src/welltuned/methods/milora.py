"""MiLoRA: the adapter starts as the r smallest singular components of W, the frozen rest keeps the principal ones.

Wang et al. 2024, arXiv 2406.09044, section 3. Deterministic: seeds vary the data order only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from welltuned.methods._low_rank import anchored, num_trainable
from welltuned.methods._method import Method, State
from welltuned.methods._residual import balanced, svd

if TYPE_CHECKING:
    from torch import Generator, Tensor


def init(W_OI: Tensor, analysis: Any, rank: int, scaling: float, generator: Generator) -> State:
    """Return A0 = (S_-r/s)^(1/2) V_-r^T and B0 = U_-r (S_-r/s)^(1/2) of the r smallest singular values; dA = dB = 0."""
    del W_OI, generator
    U_OK, S_K, Vh_KI = analysis
    first = len(S_K) - rank
    return balanced(U_OK[:, first:], S_K[first:], Vh_KI[first:], scaling)


METHOD = Method(
    summary="MiLoRA: starts from the minor singular components of W",
    paper="Wang et al. 2024, arXiv 2406.09044",
    formula="y = (W - s B0 A0) x + s B A x;  s B0 A0 = the r smallest singular components of W",
    version=2,
    uses_rank=True,
    deterministic=True,
    parametrisation=anchored,
    num_trainable=num_trainable,
    init=init,
    analyse=svd,
    trains="A, B",
    advice="1.4 to 1.8 times below LoRA's (arXiv 2602.04998, read off its figures)",
)
