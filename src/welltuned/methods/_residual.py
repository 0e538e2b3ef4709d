"""What methods that move a part of W share: factors from an SVD, split evenly, and a state that starts at the base.

W = U S V^T, descending. With s the scaling, the chosen r components give A0 = (S_r / s)^(1/2) V_r^T and
B0 = U_r (S_r / s)^(1/2), so that s B0 A0 is exactly that part of W.
Shape letters: I in, O out, R rank, K = min(O, I).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from welltuned.methods._draw import dtype_of
from welltuned.methods._method import Context, State

if TYPE_CHECKING:
    from torch import Tensor


def svd(W_OI: Tensor, context: Context) -> tuple[Tensor, Tensor, Tensor]:
    """Return U [O, K], S [K] and V^T [K, I] of the weight, in float32 or better."""
    import torch

    del context
    return torch.linalg.svd(W_OI.to(dtype_of(W_OI)), full_matrices=False)


def balanced(U_OR: Tensor, S_R: Tensor, Vh_RI: Tensor, scaling: float) -> State:
    """Return the anchored state whose s B0 A0 is U S V^T, at step 0 (dA = dB = 0)."""
    root_R = (S_R / scaling).sqrt()
    return anchored_state(root_R[:, None] * Vh_RI, U_OR * root_R)


def anchored_state(A0_RI: Tensor, B0_OR: Tensor) -> State:
    """Return the state of an anchored method at step 0."""
    import torch

    return {"dA": torch.zeros_like(A0_RI), "dB": torch.zeros_like(B0_OR), "A0": A0_RI, "B0": B0_OR}
