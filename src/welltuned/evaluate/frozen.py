"""A pack's adapters for generation: scaled, concatenated, transposed and rounded once, instead of for every token.

Shape letters: N trials, S token slots of a trial, P numbers of a trial, I in, O out, R rank.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from welltuned.methods._low_rank import anchored, factors, plain
from welltuned.methods._method import Frozen, Parametrisation, State
from welltuned.packing.group import Group
from welltuned.packing.state import PackState


def frozen(state: PackState, positions: Sequence[int], dtype: torch.dtype) -> PackState:
    """Return the trials at these pack positions (ascending), untrainable; low-rank ones as two factors in `dtype`.

    A site computes in the base's dtype, so the factors are what it would round to at every call. Other
    parametrisations stay as they are.
    """
    groups: list[Group] = []
    for group in state.groups:
        inside = [position - group.start for position in positions if group.start <= position < group.stop]
        if inside:
            start = groups[-1].stop if groups else 0
            groups.append(_frozen(group, inside, start, dtype))
    return PackState(groups)


def _frozen(group: Group, inside: Sequence[int], start: int, dtype: torch.dtype) -> Group:
    """Return a group whose tensors are all anchors: nothing of it is trained, and what sites share is shared."""
    index = torch.tensor(inside, device=group.flat_NP.device)
    scalings = {site: scaling_N.index_select(0, index) for site, scaling_N in group.scalings.items()}
    anchors: dict[str, State] = {}
    parametrisation = group.parametrisation
    is_low_rank = _is_low_rank(parametrisation)
    for site, leaves in group.leaves.items():
        own = group.tensors(site) if is_low_rank else {**leaves, **group.anchors[site]}
        tensors = {name: tensor.detach().index_select(0, index) for name, tensor in own.items()}
        anchors[site] = _factors(tensors, scalings[site], dtype) if is_low_rank else tensors
    if is_low_rank:
        parametrisation = FACTORS
    none_NP = group.flat_NP.new_zeros(len(inside), 0)
    ranks = tuple(group.ranks[position] for position in inside)
    fixed = Group.fresh(parametrisation, start, none_NP, scalings, {}, anchors, ranks)
    fixed.leaves = {site: {} for site in anchors}
    if not is_low_rank:
        fixed.parts = group.parts
        fixed.shared = {key: one if one.shape[0] == 1 else one[index] for key, one in group.shared.items()}
    return fixed


def _is_low_rank(parametrisation: Parametrisation) -> bool:
    return parametrisation.apply in (plain().apply, anchored().apply)


def _factors(tensors: Mapping[str, Tensor], scaling_N: Tensor, dtype: torch.dtype) -> State:
    """Return the factors of y = W x + s B A x, as A^T [N, I, R] and s B^T [N, R, O]."""
    down, up = factors(tensors)
    return {"down": down.to(dtype).mT.contiguous(), "up": (up * scaling_N[:, None, None]).to(dtype).mT.contiguous()}


def _shape(name: str, num_out: int, num_in: int, rank: int) -> tuple[int, ...]:
    return (num_in, rank) if name == "down" else (rank, num_out)


def _apply(x_NSI: Tensor, state: Mapping[str, Tensor], scaling_N: Tensor, frozen: Frozen) -> Tensor:
    del scaling_N, frozen
    return torch.bmm(torch.bmm(x_NSI, state["down"]), state["up"])


def _delta(state: Mapping[str, Tensor], scaling: float, W_OI: Tensor) -> Tensor:
    del scaling, W_OI
    return (state["down"] @ state["up"]).mT


FACTORS = Parametrisation("factors", (), ("down", "up"), _shape, _apply, {}, _delta)
