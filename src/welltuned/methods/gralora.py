"""GraLoRA: the weight is cut into k x k blocks, each with an adapter of rank r / k of its own; total rank up to k r.

    y_j = (W x)_j + bias_j + s sum_n B_jn A_nj x_n,   A_nj [r/k, I/k] random as LoRA's on a block, B_jn [O/k, r/k] zero

for output block j and input block n. Jung et al. 2025, arXiv 2505.20355; k = 2, which PEFT has as its default and
recommends up to rank 32. It trains as many numbers as LoRA of rank r.
Shape letters: N trials, S token slots, I in, O out, R rank, K blocks, Q = R / K.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from welltuned.methods._draw import uniform, zeros
from welltuned.methods._low_rank import num_trainable
from welltuned.methods._method import Frozen, Method, Parametrisation, State

if TYPE_CHECKING:
    from torch import Generator, Tensor

NUM_BLOCKS = 2  # K, PEFT's default


def init(W_OI: Tensor, analysis: Any, rank: int, scaling: float, generator: Generator) -> State:
    """Return A [K, K, Q, I/K], by input block and output block, and B = 0 [K, K, O/K, Q], by output and input block."""
    del analysis, scaling
    num_out, num_in = W_OI.shape
    A = uniform(_shape("A", num_out, num_in, rank), (num_in // NUM_BLOCKS) ** -0.5, generator, W_OI)
    return {"A": A, "B": zeros(_shape("B", num_out, num_in, rank), W_OI)}


def _shape(name: str, num_out: int, num_in: int, rank: int) -> tuple[int, ...]:
    inner = rank // NUM_BLOCKS
    block = (inner, num_in // NUM_BLOCKS) if name == "A" else (num_out // NUM_BLOCKS, inner)
    return (NUM_BLOCKS, NUM_BLOCKS, *block)


def _apply(x_NSI: Tensor, state: Mapping[str, Tensor], scaling_N: Tensor, frozen: Frozen) -> Tensor:
    import torch

    del frozen
    num_trials, num_slots, _ = x_NSI.shape
    down = state["A"].to(x_NSI.dtype)  # [N, K, K, Q, I/K]
    up = (state["B"] * scaling_N[:, None, None, None, None]).to(x_NSI.dtype)  # [N, K, K, O/K, Q]
    x_NKSI = x_NSI.view(num_trials, num_slots, NUM_BLOCKS, -1).transpose(1, 2)
    z_NKSR = torch.matmul(x_NKSI, down.flatten(2, 3).mT)  # of input block n: its parts for all output blocks
    z = z_NKSR.view(num_trials, NUM_BLOCKS, num_slots, NUM_BLOCKS, -1).permute(0, 3, 2, 1, 4).flatten(3)
    y_NKSO = torch.matmul(z, up.transpose(2, 3).flatten(3).mT)
    return y_NKSO.transpose(1, 2).flatten(2)


def _delta(state: Mapping[str, Tensor], scaling: float, W_OI: Tensor) -> Tensor:
    import torch

    del W_OI
    blocks = range(NUM_BLOCKS)
    rows = [[state["B"][j, n] @ state["A"][n, j] for n in blocks] for j in blocks]
    return scaling * torch.cat([torch.cat(row, dim=1) for row in rows])


def parametrisation() -> Parametrisation:
    """Return the parametrisation with trained blocks A and B."""
    return Parametrisation("gralora", ("A", "B"), (), _shape, _apply, {"A": "", "B": ""}, _delta, ("B",))


def _misfit(num_out: int, num_in: int, rank: int) -> str:
    divisible = not (num_out % NUM_BLOCKS or num_in % NUM_BLOCKS or rank % NUM_BLOCKS)
    return "" if divisible else f"a multiple of {NUM_BLOCKS}, as GraLoRA's blocks need of rank and sizes"


METHOD = Method(
    summary="GraLoRA: an adapter for each of 2 x 2 blocks of W",
    paper="Jung et al. 2025, arXiv 2505.20355",
    formula="y_j = (W x)_j + s sum_n B_jn A_nj x_n;  blocks n, j of 2;  A random, B = 0",
    version=2,
    uses_rank=True,
    deterministic=False,
    parametrisation=parametrisation,
    num_trainable=num_trainable,
    init=init,
    misfit=_misfit,
    trains="A, B of each block",
    peft="GraloraConfig(gralora_k=2)",
    advice="start from LoRA's (assumed: no published comparison at tuned rates)",
)
