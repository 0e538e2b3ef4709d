"""RandLoRA: a sum of random products that has full rank, and trained vectors that scale them.

    y = W x + s sum_k B_k diag(l_k) A diag(g_k) x,   K = ceil(min(O, I) / r) terms

Albert et al. 2025, arXiv 2502.00987. A [r, min(O, I)] and B_k [max(O, I), r] are random, frozen and shared by all
sites, each of which uses their first rows and columns; a site with fewer outputs than inputs has the transposed sum.
l = 0 and g = 1 / min(O, I) at the start. As in PEFT, entries are uniform with variance 1 (PEFT divides a draw by its
own deviation), in bfloat16, and the term of a column of [B_1 .. B_K] is PEFT's: column a K + k is that of row a of A
and term k. The columns are drawn alike, so that is the paper's sum in another order.

The A that is scaled is as large as a square W, for each trial, and a token is multiplied with it and all B_k beside W.
Shape letters: N trials, S token slots, I in, O out, R rank, K terms, M = min(O, I), L = max(O, I).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from welltuned.methods._draw import uniform, zeros
from welltuned.methods._method import Context, Frozen, Method, Parametrisation, State

if TYPE_CHECKING:
    from torch import Generator, Tensor

BOUND = 3**0.5  # of uniform numbers with variance 1


def analyse(W_OI: Tensor, context: Context) -> tuple[int, int]:
    """Return the sizes of the shared factors, the smaller first."""
    del W_OI
    return min(context.largest_out, context.largest_in), max(context.largest_out, context.largest_in)


def init(W_OI: Tensor, analysis: tuple[int, int], rank: int, scaling: float, generator: Generator) -> State:
    """Return l = 0 [R, K], g = 1 / M [K, M] and the site's part of the shared A and B."""
    import torch

    del scaling
    shapes = {name: shape(name, W_OI.shape[0], W_OI.shape[1], rank) for name in ("l", "g", "A", "B")}
    state = {"l": zeros(shapes["l"], W_OI), "g": zeros(shapes["g"], W_OI) + 1 / max(shapes["g"])}
    for name in ("A", "B"):
        whole = uniform(shape(name, *analysis, rank), BOUND, generator, W_OI)
        state[name] = whole[tuple(slice(size) for size in shapes[name])].to(torch.bfloat16).to(whole.dtype)
    return state


def shape(name: str, num_out: int, num_in: int, rank: int) -> tuple[int, ...]:
    """Return one trial's shape of a tensor."""
    small, large = sorted((num_out, num_in))
    num_terms = -(-small // rank)
    return {"l": (rank, num_terms), "g": (num_terms, small), "A": (rank, small), "B": (large, num_terms, rank)}[name]


def _factors(scaled: Tensor, B: Tensor, is_wide: bool) -> tuple[Tensor, Tensor]:
    """Return down [.., R K, I] and up [.., O, R K]; `is_wide` says that there are fewer outputs than inputs."""
    small, large = scaled.flatten(-3, -2), B.flatten(-2)
    return (large.mT, small.mT) if is_wide else (small, large)


def _apply(x_NSI: Tensor, state: Mapping[str, Tensor], scaling_N: Tensor, frozen: Frozen) -> Tensor:
    import torch

    from welltuned.kernels import Scaled

    scaled = Scaled.apply(state["l"] * scaling_N[:, None, None], state["A"], state["g"], x_NSI.dtype)
    down, up = _factors(scaled, state["B"].to(x_NSI.dtype), frozen.num_out < x_NSI.shape[-1])
    return torch.bmm(torch.bmm(x_NSI, down.mT), up.mT)


def _delta(state: Mapping[str, Tensor], scaling: float, W_OI: Tensor) -> Tensor:
    scaled = state["l"][..., None] * (state["A"][:, None] * state["g"])
    down_RI, up_OR = _factors(scaled, state["B"], W_OI.shape[0] < W_OI.shape[1])
    return scaling * (up_OR @ down_RI)


def parametrisation() -> Parametrisation:
    """Return the parametrisation with trained l, g and frozen A, B; K follows from the rank, so none is padded."""
    decayed = {"l": "", "g": ""}
    return Parametrisation(
        "randlora", ("l", "g"), ("A", "B"), shape, _apply, decayed, _delta, shared=("A", "B"), padded=False
    )


def _num_trainable(num_out: int, num_in: int, rank: int) -> int:
    """Count K (r + M): fewer where the rank is higher."""
    num_terms, small = shape("g", num_out, num_in, rank)
    return num_terms * (rank + small)


def _num_frozen(num_out: int, num_in: int, rank: int) -> int:
    """Count R K (O + I)."""
    num_terms, _ = shape("g", num_out, num_in, rank)
    return num_terms * rank * (num_out + num_in)


METHOD = Method(
    summary="RandLoRA: trained vectors scale random products of full rank",
    paper="Albert et al. 2025, arXiv 2502.00987",
    formula="y = W x + s sum_k B_k diag(l_k) A diag(g_k) x;  A, B_k random and frozen, l = 0, g = 1 / min(m, n)",
    version=2,
    uses_rank=True,
    deterministic=False,
    parametrisation=parametrisation,
    num_trainable=_num_trainable,
    init=init,
    analyse=analyse,
    shared_stream=True,
    num_frozen=_num_frozen,
    num_kept=lambda num_out, num_in, rank: rank * shape("g", num_out, num_in, rank)[0],
    trains="l, g (about min(m, n)^2 / r numbers)",
    peft="RandLoraConfig()",
    advice="its own grid; PEFT's default multiplier is 20, alpha = \"20r\", against LoRA's 1",
)
