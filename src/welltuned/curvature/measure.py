"""What is measured of blocks: both ends of the spectra, gradients and their noise, the curvature along a sign step.

Everything here asks an operator for products and gradients and knows nothing of models, so that it is tested on plain
matrices. All of it is in units of the loss per number trained: an eigenvalue is d2(nats) / d(number)^2.
Shape letters: N blocks, P numbers of a block padded to the longest.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from welltuned.curvature.blocks import Gradients
from welltuned.curvature.lanczos import Effort, Spectrum, extremes


class Operator(Protocol):
    """N matrices, known by their products, and the gradients that go with them."""

    num_blocks: int
    length: int
    own_NP: Tensor  # 1 where a number is the block's own, 0 where it is padding

    def gradients(self) -> Gradients:
        """Return the gradients of the mean loss, and their spread over rows."""
        ...

    def hessian(self, v_NP: Tensor, numbers: Sequence[int]) -> Tensor:
        """Return H v for the blocks of these numbers."""
        ...

    def gauss_newton(self, v_NP: Tensor, numbers: Sequence[int]) -> Tensor:
        """Return the Gauss-Newton matrix times v for the blocks of these numbers."""
        ...


class Counted:
    """An operator that tells how many products it has made."""

    def __init__(self, operator: Operator, tell: Callable[[int], None]) -> None:
        self.num_blocks, self.length, self.own_NP = operator.num_blocks, operator.length, operator.own_NP
        self.gradients = operator.gradients
        self._operator, self._tell, self._num_made = operator, tell, 0

    def hessian(self, v_NP: Tensor, numbers: Sequence[int]) -> Tensor:
        """Return H v, and tell."""
        return self._told(self._operator.hessian(v_NP, numbers))

    def gauss_newton(self, v_NP: Tensor, numbers: Sequence[int]) -> Tensor:
        """Return the Gauss-Newton matrix times v, and tell."""
        return self._told(self._operator.gauss_newton(v_NP, numbers))

    def _told(self, product_NP: Tensor) -> Tensor:
        self._num_made += 1
        self._tell(self._num_made)
        return product_NP


@dataclass(frozen=True)
class Facts:
    """What is known of one block."""

    num_numbers: int
    gradient_norm: float
    gradient_l1: float
    noise_trace: float | None  # one row's share of the gradient's variance, summed; None of a single row
    sign_curvature: float  # s' H s with s = sign(g)
    hessian: Spectrum
    gauss_newton: Spectrum
    preconditioned: Spectrum | None  # of P^-1/2 H P^-1/2; None where there is no P


def measure(
    operator: Operator, start_NP: Tensor, gradients: Gradients, preconditioner_NP: Tensor | None, effort: Effort
) -> list[Facts]:
    """Measure all blocks of an operator, from start vectors [N, P] of random numbers."""
    everyone = range(operator.num_blocks)
    start_NP = start_NP * operator.own_NP
    sign_NP = gradients.mean_NP.sign()
    bent_N = (sign_NP * operator.hessian(sign_NP, everyone)).double().sum(1)
    hessian = extremes(operator.hessian, start_NP, effort=effort)
    gauss_newton = extremes(operator.gauss_newton, start_NP, both=False, effort=effort)
    preconditioned: list[Spectrum | None] = [None] * operator.num_blocks
    if preconditioner_NP is not None:
        # the padding's P is taken for 1; its products are 0
        root_NP = torch.where(operator.own_NP > 0, preconditioner_NP, 1).rsqrt()

        def product(v_NP: Tensor, numbers: Sequence[int]) -> Tensor:
            part_NP = root_NP[list(numbers)]
            return part_NP * operator.hessian(part_NP * v_NP, numbers)

        preconditioned = [*extremes(product, start_NP, both=False, effort=effort)]
    mean_NP = gradients.mean_NP.double()
    traces = None if gradients.variance_NP is None else gradients.variance_NP.double().sum(1).tolist()
    return [
        Facts(
            num_numbers=int(operator.own_NP[number].sum()),
            gradient_norm=mean_NP[number].norm().item(),
            gradient_l1=mean_NP[number].abs().sum().item(),
            noise_trace=None if traces is None else traces[number],
            sign_curvature=bent_N[number].item(),
            hessian=hessian[number],
            gauss_newton=gauss_newton[number],
            preconditioned=preconditioned[number],
        )
        for number in everyone
    ]


def spectral_norms(weights: dict[str, Tensor]) -> dict[str, float]:
    """Return the largest singular value of dL/dW for each site."""
    return {site: torch.linalg.matrix_norm(weight_OI.double(), 2).item() for site, weight_OI in weights.items()}
