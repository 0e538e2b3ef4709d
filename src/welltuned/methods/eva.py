"""EVA: A starts as the principal directions of the site's inputs on the first training rows, B as zero.

Paischer et al. 2024, arXiv 2410.07170, at the same rank everywhere (rho = 1: ranks are not moved between sites, which
would change the number of trained weights from site to site). As in PEFT, which the authors wrote, the inputs are those
at target tokens, and their mean is removed. Deterministic, given the rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from welltuned.methods._draw import dtype_of, zeros
from welltuned.methods._low_rank import num_trainable, plain
from welltuned.methods._method import Context, Method, State

if TYPE_CHECKING:
    from torch import Generator, Tensor

NUM_SAMPLES = 32  # rows; assumed: as for LoRA-GA. The paper goes on until the directions stand still


def analyse(W_OI: Tensor, context: Context) -> Tensor:
    """Return the eigenvectors of the inputs' covariance as rows [I, I], the largest eigenvalue first."""
    import torch

    assert context.covariance_II is not None
    return torch.linalg.eigh(context.covariance_II).eigenvectors.T.flip(0).to(dtype_of(W_OI))


def init(W_OI: Tensor, analysis: Any, rank: int, scaling: float, generator: Generator) -> State:
    """Return A = the first r directions [R, I] and B = 0 [O, R]."""
    del scaling, generator
    return {"A": analysis[:rank].contiguous(), "B": zeros((W_OI.shape[0], rank), W_OI)}


METHOD = Method(
    summary="EVA: A starts as the principal directions of the inputs",
    paper="Paischer et al. 2024, arXiv 2410.07170",
    formula="y = W x + s B A x;  A = the first r right singular vectors of the inputs, B = 0",
    version=2,
    uses_rank=True,
    deterministic=True,
    parametrisation=plain,
    num_trainable=num_trainable,
    init=init,
    analyse=analyse,
    samples=NUM_SAMPLES,
    looks_at="inputs",
    trains="A, B",
    peft='LoraConfig(init_lora_weights="eva", eva_config=EvaConfig(rho=1.0))',
    advice="start from LoRA's (assumed); A's rows have norm 1 against LoRA's 0.58",
)
