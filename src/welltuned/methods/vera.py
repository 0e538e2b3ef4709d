"""VeRA: frozen random factors A and B, shared by all sites, and trained vectors d and b that scale their rows.

    y = W x + diag(b) B diag(d) A x;  d = 0.1, b = 0 at the start

Kopiczko et al. 2023, arXiv 2310.11454, equation 2. As in PEFT, A [R, n] and B [m, R] have the largest sizes n, m of all
adapted sites, each site uses the first I columns of A and O rows of B, both are Kaiming uniform (bounds sqrt(6 / n) and
sqrt(6 / r)), and there is no alpha.
Shape letters: N trials, S token slots, I in, O out, R rank.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from welltuned.methods import _low_rank
from welltuned.methods._draw import uniform, zeros
from welltuned.methods._method import Context, Frozen, Method, Parametrisation, State

if TYPE_CHECKING:
    from torch import Generator, Tensor

FIRST_D = 0.1  # Kopiczko et al. 2023, section 4, and PEFT's d_initial


def analyse(W_OI: Tensor, context: Context) -> tuple[int, int]:
    """Return the sizes of the shared factors."""
    del W_OI
    return context.largest_out, context.largest_in


def init(W_OI: Tensor, analysis: tuple[int, int], rank: int, scaling: float, generator: Generator) -> State:
    """Return d = 0.1 [R], b = 0 [O] and the site's part of the shared A and B."""
    del scaling
    num_out, num_in = W_OI.shape
    largest_out, largest_in = analysis
    A_RI = uniform((rank, largest_in), (6 / largest_in) ** 0.5, generator, W_OI)[:, :num_in]
    B_OR = uniform((largest_out, rank), (6 / rank) ** 0.5, generator, W_OI)[:num_out]
    return {"d": zeros((rank,), W_OI) + FIRST_D, "b": zeros((num_out,), W_OI), "A": A_RI, "B": B_OR}


def _scaled(state: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return diag(d) A and diag(b) B."""
    return state["d"][..., None] * state["A"], state["b"][..., None] * state["B"]


def _apply(x_NSI: Tensor, state: Mapping[str, Tensor], scaling_N: Tensor, frozen: Frozen) -> Tensor:
    from welltuned.kernels import Skinny

    del frozen
    return Skinny.apply(x_NSI, *_scaled(state), scaling_N)


def _delta(state: Mapping[str, Tensor], scaling: float, W_OI: Tensor) -> Tensor:
    del W_OI
    down_RI, up_OR = _scaled(state)
    return scaling * (up_OR @ down_RI)


def _shape(name: str, num_out: int, num_in: int, rank: int) -> tuple[int, ...]:
    return {"d": (rank,), "b": (num_out,)}.get(name) or _low_rank.shape(name, num_out, num_in, rank)


def parametrisation() -> Parametrisation:
    """Return the parametrisation with trained d [R] and b [O] and frozen A, B."""
    return Parametrisation(
        "vera", ("d", "b"), ("A", "B"), _shape, _apply, {"d": "", "b": ""}, _delta, shared=("A", "B")
    )


def _num_trainable(num_out: int, num_in: int, rank: int) -> int:
    """Count r + O."""
    del num_in
    return rank + num_out


METHOD = Method(
    summary="VeRA: trained vectors between shared random factors",
    paper="Kopiczko et al. 2023, arXiv 2310.11454",
    formula="y = W x + diag(b) B diag(d) A x;  A, B random and frozen, d = 0.1, b = 0",
    version=2,
    uses_rank=True,
    deterministic=False,
    parametrisation=parametrisation,
    num_trainable=_num_trainable,
    init=init,
    analyse=analyse,
    uses_alpha=False,
    shared_stream=True,
    num_frozen=_low_rank.num_trainable,
    trains="d, b (r + m numbers)",
    peft="VeraConfig()",
    advice="about 10 times LoRA's (assumed from common settings, to be tuned); its own grid, never LoRA's",
)
