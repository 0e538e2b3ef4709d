"""OLoRA: the adapter starts as the first r columns of Q and rows of R, W = Q R, the frozen rest keeps the others.

Büyükakyüz 2024, arXiv 2406.01775. Deterministic: seeds vary the data order only. s multiplies B0 A0, as in PEFT.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from welltuned.methods._draw import dtype_of
from welltuned.methods._low_rank import anchored, num_trainable
from welltuned.methods._method import Context, Method, State
from welltuned.methods._residual import anchored_state

if TYPE_CHECKING:
    from torch import Generator, Tensor


def analyse(W_OI: Tensor, context: Context) -> tuple[Tensor, Tensor]:
    """Return Q [O, K] and R [K, I] of W = Q R, K = min(O, I)."""
    import torch

    del context
    return torch.linalg.qr(W_OI.to(dtype_of(W_OI)))


def init(W_OI: Tensor, analysis: Any, rank: int, scaling: float, generator: Generator) -> State:
    """Return A0 = R[:r] and B0 = Q[:, :r]; dA = dB = 0."""
    del W_OI, scaling, generator
    Q_OK, R_KI = analysis
    return anchored_state(R_KI[:rank], Q_OK[:, :rank])


METHOD = Method(
    summary="OLoRA: starts from the QR decomposition of W",
    paper="Büyükakyüz 2024, arXiv 2406.01775",
    formula="y = (W - s B0 A0) x + s B A x;  B0 = Q[:, :r], A0 = R[:r], W = Q R",
    version=2,
    uses_rank=True,
    deterministic=True,
    parametrisation=anchored,
    num_trainable=num_trainable,
    init=init,
    analyse=analyse,
    trains="A, B",
    peft='LoraConfig(init_lora_weights="olora")',
    advice="below LoRA's: its loss is about 60 times as sharp at the start (arXiv 2602.04998, read off its figures)",
)
