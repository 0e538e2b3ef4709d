"""PiSSA: the adapter starts as the r largest singular components of W, the frozen rest keeps the others.

Meng et al. 2024, arXiv 2404.02948, equations 2-4. Deterministic: seeds vary the data order only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from welltuned.methods._low_rank import anchored, num_trainable
from welltuned.methods._method import Method, State
from welltuned.methods._residual import balanced, svd

if TYPE_CHECKING:
    from torch import Generator, Tensor


def init(W_OI: Tensor, analysis: Any, rank: int, scaling: float, generator: Generator) -> State:
    """Return A0 = (S_r/s)^(1/2) V_r^T and B0 = U_r (S_r/s)^(1/2) of the r largest singular values; dA = dB = 0."""
    del W_OI, generator
    U_OK, S_K, Vh_KI = analysis
    return balanced(U_OK[:, :rank], S_K[:rank], Vh_KI[:rank], scaling)


METHOD = Method(
    summary="PiSSA: starts from the principal singular components of W",
    paper="Meng et al. 2024, arXiv 2404.02948",
    formula="y = (W - s B0 A0) x + s B A x;  s B0 A0 = the r largest singular components of W",
    version=2,
    uses_rank=True,
    deterministic=True,
    parametrisation=anchored,
    num_trainable=num_trainable,
    init=init,
    analyse=svd,
    trains="A, B",
    peft='LoraConfig(init_lora_weights="pissa")',
    advice="2.5 to 4 times below LoRA's (arXiv 2602.04998, read off its figures)",
)
