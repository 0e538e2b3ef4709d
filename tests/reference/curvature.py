"""Dense curvature of one site's trained tensors, the plain way: row by row, one derivative at a time, no products.

`module` is the site's published form (reference.methods) with its parameters at the point that is asked about.
"""

import copy

import torch
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from reference.train import batch_loss


class Block:
    """The loss and the logits of a model as functions of one site's parameters, as one vector."""

    def __init__(self, model, site, module, rows):
        self.model, self.rows = copy.deepcopy(model), rows
        parent, _, last = site.rpartition(".")
        setattr(self.model.get_submodule(parent), last, module)
        self.names = [(f"{site}.{name}", value.shape) for name, value in module.named_parameters()]
        self.point = torch.cat([value.detach().reshape(-1) for value in module.parameters()])

    def with_numbers(self, vector):
        parts = vector.split([shape.numel() for _, shape in self.names])
        values = {name: part.view(shape) for (name, shape), part in zip(self.names, parts, strict=True)}
        return lambda input_ids: functional_call(self.model, values, (), {"input_ids": input_ids, "use_cache": False})

    def loss(self, vector, rows=None):
        return batch_loss(self.with_numbers(vector), self.rows if rows is None else rows)

    def logits(self, vector):
        """The logits at all target positions, [K, V]."""
        run = self.with_numbers(vector)
        found = []
        for ids, prompt in self.rows:
            found.append(run(torch.tensor([ids])).logits[0, max(prompt, 1) - 1 : len(ids) - 1])
        return torch.cat(found)

    def gradient(self, rows=None):
        with sdpa_kernel(SDPBackend.MATH):
            return torch.autograd.functional.jacobian(lambda vector: self.loss(vector, rows), self.point)

    def hessian(self):
        with sdpa_kernel(SDPBackend.MATH):
            return torch.autograd.functional.hessian(self.loss, self.point, vectorize=True)

    def gauss_newton(self):
        """The mean over target positions of J^T (diag(p) - p p^T) J, with J the Jacobian of the logits."""
        with sdpa_kernel(SDPBackend.MATH):
            J_KVP = torch.autograd.functional.jacobian(self.logits, self.point, vectorize=True)
            p_KV = self.logits(self.point).softmax(-1).detach()
        total = 0.0
        for J_VP, p_V in zip(J_KVP, p_KV, strict=True):
            total = total + J_VP.T @ (torch.diag(p_V) - torch.outer(p_V, p_V)) @ J_VP
        return total / len(p_KV)
