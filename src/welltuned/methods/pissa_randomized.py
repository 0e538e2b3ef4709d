"""PiSSA by randomized SVD: the r largest singular components of W, approximated in a fraction of the time.

Meng et al. 2024, arXiv 2404.02948, section 4 ("fast SVD"), with the algorithm of Halko et al. 2011, 4.4 (randomized
subspace iteration), as `pissa_niter_4` of PEFT runs it: a random [I, r] test matrix, no oversampling, four iterations.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from welltuned.methods._draw import dtype_of, normal
from welltuned.methods._low_rank import anchored, num_trainable
from welltuned.methods._method import Method, State
from welltuned.methods._residual import balanced

if TYPE_CHECKING:
    from torch import Generator, Tensor

NUM_ITERATIONS = 4  # of PEFT's example, pissa_niter_4; the paper compares 1 to 16


def init(W_OI: Tensor, analysis: Any, rank: int, scaling: float, generator: Generator) -> State:
    """Return PiSSA's A0 and B0 from an approximate SVD; dA = dB = 0."""
    import torch

    del analysis
    test_IR = normal((W_OI.shape[1], rank), 1.0, generator, W_OI)
    W_OI = W_OI.to(dtype_of(W_OI))
    Q_OR = torch.linalg.qr(W_OI @ test_IR).Q
    for _ in range(NUM_ITERATIONS):
        Q_OR = torch.linalg.qr(W_OI @ torch.linalg.qr(W_OI.T @ Q_OR).Q).Q
    U_RR, S_R, Vh_RI = torch.linalg.svd(Q_OR.T @ W_OI, full_matrices=False)
    return balanced(Q_OR @ U_RR, S_R, Vh_RI, scaling)


METHOD = Method(
    summary="PiSSA by randomized SVD: approximate principal components of W",
    paper="Meng et al. 2024, arXiv 2404.02948",
    formula="y = (W - s B0 A0) x + s B A x;  s B0 A0 = about the r largest singular components of W",
    version=2,
    uses_rank=True,
    deterministic=False,
    parametrisation=anchored,
    num_trainable=num_trainable,
    init=init,
    trains="A, B",
    peft='LoraConfig(init_lora_weights="pissa_niter_4")',
    advice="as PiSSA's: 2.5 to 4 times below LoRA's (arXiv 2602.04998, read off its figures)",
)
