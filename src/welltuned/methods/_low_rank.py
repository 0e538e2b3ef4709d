"""The low-rank parametrisations: plain, y = W x + s B (A x), and anchored, for methods that move a part of W.

Anchored (design D1): with frozen A0, B0 and trained differences, A = A0 + dA and B = B0 + dB,

    y = W x + s (B A - B0 A0) x = W x + s (B0 (dA x) + dB (A x)) = W x + s [B0 | dB] ([dA ; A] x)

which has the function and the gradients of the published in-place form (W - s B0 A0) x + s B A x, but equals the base
exactly at step 0 in any precision and leaves W to be shared by all trials.
Shape letters: N trials, S token slots, I in, O out, R rank.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from welltuned.methods._method import Frozen, Parametrisation

if TYPE_CHECKING:
    from torch import Tensor


def num_trainable(num_out: int, num_in: int, rank: int) -> int:
    """Count the trained numbers of one site: r (O + I)."""
    return rank * (num_out + num_in)


def plain() -> Parametrisation:
    """Return the parametrisation with trained A [R, I] and B [O, R] and no anchors."""
    return Parametrisation("low_rank", ("A", "B"), (), shape, _apply, {"A": "", "B": ""}, _delta, ("B",))


def anchored() -> Parametrisation:
    """Return the parametrisation with trained dA, dB and anchors A0, B0; weight decay acts on A0 + dA and B0 + dB."""
    decayed = {"dA": "A0", "dB": "B0"}
    return Parametrisation("anchored", ("dA", "dB"), ("A0", "B0"), shape, _apply, decayed, _delta, ("dB",))


def shape(name: str, num_out: int, num_in: int, rank: int) -> tuple[int, ...]:
    """Return one trial's shape of a factor: [R, I] of those called A, [O, R] of those called B."""
    return (rank, num_in) if "A" in name else (num_out, rank)


def factors(state: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return (down [.., R, I], up [.., O, R]) whose product, times s, is the change of W; anchors double R."""
    import torch

    if "A" in state:
        return state["A"], state["B"]
    down = torch.cat([state["dA"], state["A0"] + state["dA"]], dim=-2)
    return down, torch.cat([state["B0"], state["dB"]], dim=-1)


def _apply(x_NSI: Tensor, state: Mapping[str, Tensor], scaling_N: Tensor, frozen: Frozen) -> Tensor:
    """Return s up (down x), computed in the dtype of x."""
    from welltuned.kernels import Skinny

    del frozen
    return Skinny.apply(x_NSI, *factors(state), scaling_N)


def _delta(state: Mapping[str, Tensor], scaling: float, W_OI: Tensor) -> Tensor:
    del W_OI
    down_RI, up_OR = factors(state)
    return scaling * (up_OR @ down_RI)
