"""All parameters of a model by name, and where each stands: a tied one stands at several places."""

from typing import NamedTuple

from torch import nn


class Placed(NamedTuple):
    """A parameter, and the modules that hold it, each with the name that it has there."""

    parameter: nn.Parameter
    places: tuple[tuple[nn.Module, str], ...]


def placed(model: nn.Module) -> dict[str, Placed]:
    """Return every parameter once, by the first of its names, in the model's order."""
    names: dict[int, str] = {}
    found: dict[str, Placed] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        holder, _, own = name.rpartition(".")
        first = names.setdefault(id(parameter), name)
        before = found[first].places if first in found else ()
        found[first] = Placed(parameter, (*before, (model.get_submodule(holder), own)))
    return found
