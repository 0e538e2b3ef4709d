"""BOFT: the inputs of W are turned by an orthogonal butterfly, and each output is scaled.

    y = diag(s) W Q^T x + bias,   Q = Q_1 Q_0

Liu et al. 2023, arXiv 2311.06243. Q_0 turns blocks of b inputs, each by an orthogonal matrix of its own; Q_1 turns
blocks that have a half from each of two such blocks, so that two factors mix 2 b inputs. A block is the Cayley
transform (I - S) (I + S)^-1 of the skew S = (R - R^T) / 2 of a trained R [b, b], zero at the start; s is one. b is the
setting `rank`. As PEFT's BOFTConfig(boft_block_size=b, boft_n_butterfly_factor=2) where it has its CUDA extension;
without it PEFT takes one factor, whatever is asked for.

With Q = I + E, y = W x + bias + (s - 1) W x + s W (E^T x), which is the base to the bit at the start, where E = 0. It
costs a second product with W.
Shape letters: N trials, S token slots, I in, O out, b block size, D = I / b blocks, P = D / 2 pairs, H = b / 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from welltuned.methods._draw import zeros
from welltuned.methods._method import Frozen, Method, Parametrisation, State

if TYPE_CHECKING:
    from torch import Generator, Tensor

NUM_FACTORS = 2  # of the butterfly; the fewest that are one, since a single factor is OFT's block-diagonal matrix


def init(W_OI: Tensor, analysis: Any, rank: int, scaling: float, generator: Generator) -> State:
    """Return R = 0 [2, D, b, b] and s = 1 [O]."""
    del analysis, scaling, generator
    num_out, num_in = W_OI.shape
    return {name: zeros(_shape(name, num_out, num_in, rank), W_OI) + (name == "s") for name in ("R", "s")}


def _shape(name: str, num_out: int, num_in: int, rank: int) -> tuple[int, ...]:
    return (NUM_FACTORS, num_in // rank, rank, rank) if name == "R" else (num_out,)


def turns(R: Tensor) -> Tensor:
    """Return E [.., P, 2b, 2b], the blocks of Q - I, exactly zero where R is.

    (I - S) (I + S)^-1 - I = -2 S (I + S)^-1, and (I + E_1) (I + E_0) - I = E_1 + E_0 + E_1 E_0.
    """
    import torch

    size = R.shape[-1]
    S = (R - R.mT) / 2
    one = torch.eye(size, dtype=R.dtype, device=R.device)
    blocks = torch.linalg.solve(one + S, -2 * S, left=False).unflatten(-3, (-1, 2))  # [.., 2, P, 2, b, b]
    pair = torch.eye(2, dtype=R.dtype, device=R.device)
    first, second = blocks.unbind(-5)
    E0 = torch.einsum("...kij,kl->...kilj", first, pair)
    halves = second.unflatten(-1, (2, -1)).unflatten(-3, (2, -1))  # [.., P, 2, 2, H, 2, H]
    E1 = torch.einsum("...kaicj,kl->...akiclj", halves, pair)  # block k has half k of either block of the pair
    shape = (*E0.shape[:-4], 2 * size, 2 * size)
    E0, E1 = E0.reshape(shape), E1.reshape(shape)
    return E1 + E0 + E1 @ E0


def _apply(x_NSI: Tensor, state: Mapping[str, Tensor], scaling_N: Tensor, frozen: Frozen) -> Tensor:
    del scaling_N
    E = turns(state["R"]).to(x_NSI.dtype)  # [N, P, 2b, 2b]
    x_NPSb = x_NSI.unflatten(-1, (E.shape[1], -1)).transpose(1, 2)
    turned_NSI = (x_NPSb @ E).transpose(1, 2).flatten(2)
    s_N1O = state["s"][:, None]
    change_NSO = (s_N1O - 1).to(x_NSI.dtype) * frozen.product(x_NSI)
    return change_NSO + s_N1O.to(x_NSI.dtype) * frozen.product(turned_NSI)


def _delta(state: Mapping[str, Tensor], scaling: float, W_OI: Tensor) -> Tensor:
    del scaling
    E = turns(state["R"])
    W_OI = W_OI.to(E.dtype)
    turned_OI = (W_OI.unflatten(1, (len(E), -1)).transpose(0, 1) @ E.mT).transpose(0, 1).flatten(1)
    return (state["s"] - 1)[:, None] * W_OI + state["s"][:, None] * turned_OI


def parametrisation() -> Parametrisation:
    """Return the parametrisation with trained R and s; weight decay acts on both, as in PEFT with Trainer."""
    return Parametrisation("boft", ("R", "s"), (), _shape, _apply, {"R": "", "s": ""}, _delta, padded=False)


def _num_trainable(num_out: int, num_in: int, rank: int) -> int:
    """Count 2 b I + O; of the numbers of R, S has (b - 1) / 2 b independent ones."""
    return NUM_FACTORS * rank * num_in + num_out


def _misfit(num_out: int, num_in: int, rank: int) -> str:
    del num_out
    fits = rank % 2 == 0 and num_in % (2 * rank) == 0
    return "" if fits else f"an even block size whose double divides the {num_in} inputs, as BOFT's butterfly needs"


METHOD = Method(
    summary="BOFT: the inputs are turned by an orthogonal butterfly",
    paper="Liu et al. 2023, arXiv 2311.06243",
    formula="y = diag(s) W Q^T x;  Q: two factors, blocks of r inputs turned by Cayley transforms of R;  R = 0, s = 1",
    version=2,
    uses_rank=True,
    deterministic=True,
    parametrisation=parametrisation,
    num_trainable=_num_trainable,
    init=init,
    uses_alpha=False,
    misfit=_misfit,
    num_frozen=lambda num_out, num_in, rank: num_out * num_in,
    num_kept=lambda num_out, num_in, rank: num_in + 2 * num_out,  # x in blocks, W x, and W of what was turned
    trains="R, s (2 r n + m numbers)",
    peft="BOFTConfig(boft_n_butterfly_factor=2)",
    advice="its own grid, never LoRA's: an angle is no part of a weight (assumed: no comparison at tuned rates known)",
)
