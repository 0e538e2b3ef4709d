"""DoRA: LoRA on the direction of each output row of W, and a trained magnitude m for each.

Liu et al. 2024, arXiv 2402.09353, equation 5, with the norm c cut from the gradient (section 4.3), as in PEFT:

    y = bias + diag(m / c) (W + D) x = W x + bias + diag(m / c - 1) W x + diag(m / c) D x,   D = s B A

c_o = ||W_o + D_o||, and m_o = ||W_o|| at the start. D is that of any low-rank method ("dora+pissa": s (B A - B0 A0)).
With q_o = ||W_o||^2 kept, c^2 = q + 2 s diag(B A W^T) + s^2 diag(B A A^T B^T) takes no matrix of W's size for each
trial, and is exactly q where D = 0, so that step 0 is the base to the bit.
Shape letters: N trials, S token slots, I in, O out, R rank (2 R where anchored).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from welltuned.methods import _low_rank, lora
from welltuned.methods._draw import dtype_of
from welltuned.methods._method import Frozen, Method, Parametrisation, State

if TYPE_CHECKING:
    from torch import Generator, Tensor


def _norms(state: Mapping[str, Tensor], W_OI: Tensor, scaling_N: Tensor) -> Tensor:
    """Return c [.., O], the norms of the rows of W + D, detached from the gradient."""
    import torch

    with torch.no_grad():
        down_NRI, up_NOR = _low_rank.factors(state)
        up_NOR = up_NOR * scaling_N[..., None, None]
        cross_NOR = (down_NRI @ W_OI.to(down_NRI.dtype).mT).mT
        square_NOR = up_NOR @ (down_NRI @ down_NRI.mT)
        change_NO = (up_NOR * (2 * cross_NOR + square_NOR)).sum(-1)
        smallest = torch.finfo(up_NOR.dtype).tiny  # a row of zeros stays one
        return (state["q"] + change_NO).clamp_min(smallest).sqrt()


def _apply(x_NSI: Tensor, state: Mapping[str, Tensor], scaling_N: Tensor, frozen: Frozen) -> Tensor:
    from welltuned.kernels import Skinny

    ratio_NO = state["m"] / _norms(state, frozen.weight_OI, scaling_N)
    down_NRI, up_NOR = _low_rank.factors(state)
    change_NSO = Skinny.apply(x_NSI, down_NRI, ratio_NO[:, :, None] * up_NOR, scaling_N)
    return change_NSO + (ratio_NO - 1).to(x_NSI.dtype)[:, None] * frozen.product(x_NSI)


def _delta(state: Mapping[str, Tensor], scaling: float, W_OI: Tensor) -> Tensor:
    down_RI, up_OR = _low_rank.factors(state)
    W_OI = W_OI.to(down_RI.dtype)
    ratio_O = state["m"] / _norms(state, W_OI, down_RI.new_tensor(scaling))
    return (ratio_O[:, None] - 1) * W_OI + ratio_O[:, None] * (scaling * (up_OR @ down_RI))


def _shape(name: str, num_out: int, num_in: int, rank: int) -> tuple[int, ...]:
    return (num_out,) if name in ("m", "q") else _low_rank.shape(name, num_out, num_in, rank)


def _with_magnitude(form: Callable[[], Parametrisation], name: str) -> Callable[[], Parametrisation]:
    """Return a low-rank parametrisation with a trained magnitude; PEFT's LoRA+ gives vectors the larger rate, too."""

    def parametrisation() -> Parametrisation:
        low_rank = form()
        trained, anchors = (*low_rank.trained, "m"), (*low_rank.anchors, "q")
        decayed, fast = {**low_rank.decayed, "m": ""}, (*low_rank.fast, "m")
        # the gradient of m is a product with the base's output
        return Parametrisation(name, trained, anchors, _shape, _apply, decayed, _delta, fast, keeps_output=True)

    return parametrisation


FORMS = {
    "low_rank": _with_magnitude(_low_rank.plain, "dora"),
    "anchored": _with_magnitude(_low_rank.anchored, "dora_anchored"),
}


def with_init(source: Method) -> Method:
    """Return DoRA whose factors start as another method's."""

    def init(W_OI: Tensor, analysis: Any, rank: int, scaling: float, generator: Generator) -> State:
        q_O = W_OI.to(dtype_of(W_OI)).square().sum(1)
        return source.init(W_OI, analysis, rank, scaling, generator) | {"m": q_O.sqrt(), "q": q_O}

    return dataclasses.replace(
        source,
        summary=f"DoRA, its factors started as by {source.summary.partition(':')[0]}",
        paper=f"{PAPER}; {source.paper}",
        formula=f"{FORMULA}; the start of B A: {source.formula.partition(';')[2].strip()}",
        version=VERSION * 100 + source.version,  # either one's change is seen
        parametrisation=FORMS[source.parametrisation().name],
        num_trainable=lambda num_out, num_in, rank: source.num_trainable(num_out, num_in, rank) + num_out,
        init=init,
        trains=f"{source.trains}, m",
        peft=PEFT if not source.peft else source.peft.replace(")", ", use_dora=True)").replace("(, ", "("),
        advice=f"as that of its start: {source.advice}",
    )


PAPER = "Liu et al. 2024, arXiv 2402.09353"
FORMULA = "y = diag(m / c) (W + s B A) x;  c = the norms of the rows of W + s B A, without gradient;  m = those of W"
PEFT = "LoraConfig(use_dora=True)"
VERSION = 2

METHOD = dataclasses.replace(
    with_init(lora.METHOD),
    summary="DoRA: LoRA on the direction of W's rows, with trained magnitudes",
    paper=PAPER,
    formula=f"{FORMULA}, A and B as in LoRA",
    version=VERSION,
    with_init=with_init,
    advice="as LoRA's, within 0.85 to 1.1 times (arXiv 2602.04998, read off its figures)",
)
