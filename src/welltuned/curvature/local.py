"""One site's adapters as functions of their trained tensors: from a change of these to one of the output, and back.

A block of the Hessian is that of one site's trained tensors, all others fixed. With e(t) the adapters' output and H_e
the Hessian of the loss in e (linearised.py),

    H v = J^T H_e J v + d/dt (J^T d) v        J = de/dt,  d = dL/de

The second term is the cross term of A and B: at B = 0 it is all that LoRA's A has. Gauss-Newton leaves it out. J and
the second term come from one graph, that of J^T d, whose gradient by d is J v. What a parametrisation computes without
gradient (DoRA's norms) is a constant here, as it is in training.
Shape letters: N trials of one parametrisation, S token slots, I in, O out.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from welltuned.curvature.linearised import Seen
from welltuned.packing.group import Part


class Local:
    """The adapters of N trials at one site, on the rows that a `Seen` holds."""

    def __init__(self, part: Part, seen: Seen) -> None:
        self.part, self.seen = part, seen
        trained = part.parametrisation.trained
        num_trials = part.scaling_N.shape[0]
        self.shape = seen.d.shape
        leaves = {name: part.tensors[name].detach().clone().requires_grad_() for name in trained}
        self.leaves = list(leaves.values())
        x_NSI, d_NSO = (tensor.flatten(0, -2).expand(num_trials, -1, -1) for tensor in (seen.x, seen.d))
        with torch.enable_grad():
            adapted = Part(part.parametrisation, {**part.tensors, **leaves}, part.scaling_N)
            self.output_NSO = adapted.change(x_NSI, seen.frozen)
            self.d_NSO = d_NSO.clone().requires_grad_()
            self.gradients = torch.autograd.grad(self.output_NSO, self.leaves, self.d_NSO, create_graph=True)

    def forth(self, v_NP: Tensor) -> tuple[Tensor, Tensor]:
        """Return J v, [N, R, T, O], and the second term of H v, [N, P]."""
        parts = self._split(v_NP)
        found = torch.autograd.grad(
            self.gradients, [self.d_NSO, *self.leaves], parts, retain_graph=True, materialize_grads=True
        )
        return found[0].view(-1, *self.shape), flat(found[1:])

    def back(self, change: Tensor) -> Tensor:
        """Return J^T times a change of the gradient at the output, [N, R, T, O]."""
        found = torch.autograd.grad(self.output_NSO, self.leaves, change.flatten(1, -2), retain_graph=True)
        return flat(found)

    def by_row(self) -> Iterator[Tensor]:
        """Yield for each trial the share of every row in its gradient, [R, P]: the rows are taken for trials."""
        num_rows = self.shape[0]
        x_RTI, d_RTO = (tensor.flatten(1, -2) for tensor in (self.seen.x, self.seen.d))
        for number, scaling in enumerate(self.part.scaling_N):
            tensors = {
                name: tensor[number].detach().expand(num_rows, *tensor.shape[1:])
                for name, tensor in self.part.tensors.items()
            }
            leaves = {name: tensors[name].clone().requires_grad_() for name in self.part.parametrisation.trained}
            adapted = Part(self.part.parametrisation, {**tensors, **leaves}, scaling.expand(num_rows))
            with torch.enable_grad():
                output_RTO = adapted.change(x_RTI, self.seen.frozen)
            yield flat(torch.autograd.grad(output_RTO, list(leaves.values()), d_RTO))

    def _split(self, v_NP: Tensor) -> list[Tensor]:
        sizes = [leaf[0].numel() for leaf in self.leaves]
        parts = v_NP[:, : sum(sizes)].split(sizes, dim=1)
        return [part.reshape(leaf.shape) for part, leaf in zip(parts, self.leaves, strict=True)]


def flat(tensors: Sequence[Tensor]) -> Tensor:
    """Return N trials' tensors as one vector each, [N, P]."""
    return torch.cat([tensor.detach().flatten(1) for tensor in tensors], dim=1)
