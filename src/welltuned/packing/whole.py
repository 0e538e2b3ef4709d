"""Full fine-tuning of all weights, for a pack of one trial: while bound, each parameter of the base is W + dW.

Embeddings, norms, biases and a head cannot be shared by trials that change them, so nothing is gained by packing; the
trial has the model to itself for the time of a pass, and W's own tensors are put back after it, never written. A tied
parameter has one dW. The sum is made in the dtype of dW (float32 or better) and rounded to the base's: master weights,
as in mixed-precision training, and what a merged export stores.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor

from welltuned.methods._method import State
from welltuned.models.base import Base

MATRIX, VECTOR = "dW", "dv"  # of weights of two and more dimensions, and of norms and biases


def tensor_name(parameter: Tensor) -> str:
    """Return what a parameter's trained difference is called."""
    return MATRIX if parameter.dim() > 1 else VECTOR


def shapes(base: Base) -> dict[tuple[str, str], tuple[int, ...]]:
    """Return the shape of every trained difference, by the parameter's name and its own."""
    found = {name: placed.parameter for name, placed in base.parameters.items()}
    return {(name, tensor_name(parameter)): tuple(parameter.shape) for name, parameter in found.items()}


def start(base: Base) -> dict[str, State]:
    """Return dW = 0 for every parameter."""
    return {
        name: {own: base.parameters[name].parameter.new_zeros(shape)} for (name, own), shape in shapes(base).items()
    }


@contextmanager
def in_place(base: Base, changes: Mapping[str, State]) -> Iterator[None]:
    """Put W + dW in the place of every parameter inside the block; `changes` are stacked over the one trial."""
    try:
        for name, tensors in changes.items():
            parameter, places = base.parameters[name]
            (change_1,) = tensors.values()
            value = (parameter.to(change_1.dtype) + change_1[0]).to(parameter.dtype)
            for module, own in places:
                module._parameters[own] = value  # pyright: ignore[reportArgumentType]
        yield
    finally:
        for name in changes:
            parameter, places = base.parameters[name]
            for module, own in places:
                module._parameters[own] = parameter
