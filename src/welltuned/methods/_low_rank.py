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

from welltuned.methods._method import Parametrisation

if TYPE_CHECKING:
    from torch import Tensor


def num_trainable(num_out: int, num_in: int, rank: int) -> int:
    """Count the trained numbers of one site: r (O + I)."""
    return rank * (num_out + num_in)


def plain() -> Parametrisation:
    """Return the parametrisation with trained A [R, I] and B [O, R] and no anchors."""
    return Parametrisation("low_rank", ("A", "B"), (), _shape, _apply_plain, {"A": "", "B": ""}, _delta_plain)


def anchored() -> Parametrisation:
    """Return the parametrisation with trained dA, dB and anchors A0, B0; weight decay acts on A0 + dA and B0 + dB."""
    decayed = {"dA": "A0", "dB": "B0"}
    return Parametrisation("anchored", ("dA", "dB"), ("A0", "B0"), _shape, _apply_anchored, decayed, _delta_anchored)


def _shape(name: str, num_out: int, num_in: int, rank: int) -> tuple[int, ...]:
    return (rank, num_in) if "A" in name else (num_out, rank)


def _apply_plain(y_NSO: Tensor, x_NSI: Tensor, state: Mapping[str, Tensor], scaling_N: Tensor) -> Tensor:
    return _add(y_NSO, x_NSI, state["A"], state["B"], scaling_N)


def _apply_anchored(y_NSO: Tensor, x_NSI: Tensor, state: Mapping[str, Tensor], scaling_N: Tensor) -> Tensor:
    import torch

    down = torch.cat([state["dA"], state["A0"] + state["dA"]], dim=1)
    up = torch.cat([state["B0"], state["dB"]], dim=2)
    return _add(y_NSO, x_NSI, down, up, scaling_N)


def _add(y_NSO: Tensor, x_NSI: Tensor, down_NRI: Tensor, up_NOR: Tensor, scaling_N: Tensor) -> Tensor:
    """Return y + s up (down x), computed in the dtype of x."""
    from welltuned.kernels import Skinny

    return Skinny.apply(y_NSO, x_NSI, down_NRI, up_NOR, scaling_N)


def _delta_plain(state: Mapping[str, Tensor], scaling: float) -> Tensor:
    return scaling * (state["B"] @ state["A"])


def _delta_anchored(state: Mapping[str, Tensor], scaling: float) -> Tensor:
    return scaling * (state["B0"] @ state["dA"] + state["dB"] @ (state["A0"] + state["dA"]))
