"""LoRA-GA: the adapter starts along the first training rows' gradient, so that its first step is close to a full one.

With G = U S V^T the gradient of the loss by W on the first 32 training rows, and g = O^(1/4) / sqrt(gamma), gamma = 16,

    A0 = g V^T[:r],  B0 = g U[:, r:2r],  and s B0 A0 is taken off W

Wang et al. 2024, arXiv 2407.05000, algorithm 1 with the "stable" scale (theorem 3.2), as in the authors' code. PEFT's
"lora_ga" scales B0 alone, and by its singular values too: another start. Deterministic, given the rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from welltuned.methods._draw import dtype_of
from welltuned.methods._low_rank import anchored, num_trainable
from welltuned.methods._method import Context, Method, State
from welltuned.methods._residual import anchored_state

if TYPE_CHECKING:
    from torch import Generator, Tensor

GAMMA = 16  # stable_gamma of the authors' code
NUM_SAMPLES = 32  # rows; of "Learning Rate Matters", arXiv 2602.04998


def analyse(W_OI: Tensor, context: Context) -> tuple[Tensor, Tensor]:
    """Return U [O, K] and V^T [K, I] of the gradient, K = min(O, I)."""
    import torch

    assert context.gradient_OI is not None
    U_OK, _, Vh_KI = torch.linalg.svd(context.gradient_OI.to(dtype_of(W_OI)), full_matrices=False)
    return U_OK, Vh_KI


def init(W_OI: Tensor, analysis: Any, rank: int, scaling: float, generator: Generator) -> State:
    """Return A0 = g V^T[:r] and B0 = g U[:, r:2r]; dA = dB = 0."""
    del scaling, generator
    U_OK, Vh_KI = analysis
    scale = W_OI.shape[0] ** 0.25 / GAMMA**0.5
    return anchored_state(scale * Vh_KI[:rank], scale * U_OK[:, rank : 2 * rank])


def _misfit(num_out: int, num_in: int, rank: int) -> str:
    half = min(num_out, num_in) // 2
    return "" if rank <= half else f"at most {half}, half the full rank: LoRA-GA takes 2 r singular vectors"


METHOD = Method(
    summary="LoRA-GA: starts along the gradient of the first training rows",
    paper="Wang et al. 2024, arXiv 2407.05000",
    formula="y = (W - s B0 A0) x + s B A x;  A0 = g V^T[:r], B0 = g U[:, r:2r], G = U S V^T, g = m^(1/4) / 4",
    version=2,
    uses_rank=True,
    deterministic=True,
    parametrisation=anchored,
    num_trainable=num_trainable,
    init=init,
    analyse=analyse,
    samples=NUM_SAMPLES,
    misfit=_misfit,
    trains="A, B",
    peft='LoraConfig(init_lora_weights="lora_ga")',  # at another scale
    advice="below LoRA's: its loss is about 60 times as sharp at the start (arXiv 2602.04998, read off its figures)",
)
