"""Trials of a pack that share a parametrisation, stacked: one flat buffer of all trained numbers, and views of it.

A group holds `flat_NP`: all trained numbers of its N trials, P for each, so that an optimizer update is one vectorised
pass. The tensors that the sites use are views into it, padded with zeros to the group's largest rank; the padding is
inert (its gradient, moments and decay are exactly zero, since a zero row of A meets a zero column of B). Shape
letters: N trials of the group, P numbers of a trial, I in, O out, R padded rank.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from welltuned.methods._method import Frozen, Parametrisation, State

ANY_SIZE = 1 << 40  # of a weight, larger than any and divisible: what is cut to it, or to a block of it, stays whole


class Part(NamedTuple):
    """What one group adds at one site."""

    parametrisation: Parametrisation
    tensors: State
    scaling_N: Tensor

    def change(self, x_NSI: Tensor, frozen: Frozen) -> Tensor:
        """Return the change of the output of the group's trials, [N, S, O], a new tensor."""
        return self.parametrisation.apply(x_NSI, self.tensors, self.scaling_N, frozen)


class Cut(NamedTuple):
    """The first rows and columns of an anchor that sites share."""

    key: str
    shape: tuple[int, ...]

    def of(self, shared: dict[str, Tensor], num_trials: int) -> Tensor:
        """Return a view of the part, [N, ...]."""
        whole_tensor = shared[self.key]
        return whole_tensor[(slice(None), *(slice(size) for size in self.shape))].expand(num_trials, *self.shape)


@dataclass
class Group:
    """Trials that share a parametrisation, at positions [start, start + N) of the pack."""

    parametrisation: Parametrisation
    start: int
    flat_NP: Tensor
    grad_NP: Tensor
    moment1_NP: Tensor
    moment2_NP: Tensor
    scalings: dict[str, Tensor]  # site -> the trials' effective multipliers, [N]
    layout: dict[tuple[str, str], tuple[int, tuple[int, ...]]]  # (site, tensor) -> (offset, one trial's padded shape)
    anchors: dict[str, State]  # site -> anchors, stacked over the trials
    ranks: tuple[dict[str, int], ...]  # for each trial: site -> its own rank
    shared: dict[str, Tensor] = field(default_factory=dict)  # anchors that sites have a part of; [1, ...] or [N, ...]
    parts: dict[str, dict[str, Cut]] = field(default_factory=dict)  # site -> anchor -> what of which of them
    leaves: dict[str, State] = field(default_factory=dict)  # site -> trained views of flat_NP
    grads: list[Tensor] = field(default_factory=list)  # views of grad_NP, in the order of `parameters()`

    def __post_init__(self) -> None:
        for (site, name), (offset, shape) in self.layout.items():
            leaf = self._view(self.flat_NP, offset, shape).detach().requires_grad_()
            self.leaves.setdefault(site, {})[name] = leaf
            self.grads.append(self._view(self.grad_NP, offset, shape))

    @staticmethod
    def fresh(
        parametrisation: Parametrisation,
        start: int,
        flat_NP: Tensor,
        scalings: dict[str, Tensor],
        layout: dict[tuple[str, str], tuple[int, tuple[int, ...]]],
        anchors: dict[str, State],
        ranks: tuple[dict[str, int], ...],
    ) -> "Group":
        """Return a group that has not trained yet: its gradients and moments are zero."""
        grad, moment1, moment2 = (torch.zeros_like(flat_NP) for _ in range(3))
        return Group(parametrisation, start, flat_NP, grad, moment1, moment2, scalings, layout, anchors, ranks)

    def parameters(self) -> list[Tensor]:
        """Return the trained views, in the order of the layout."""
        return [self.leaves[site][name] for site, name in self.layout]

    @staticmethod
    def _view(flat_NP: Tensor, offset: int, shape: tuple[int, ...]) -> Tensor:
        size = int(torch.tensor(shape).prod())
        return flat_NP[:, offset : offset + size].view(flat_NP.shape[0], *shape)

    @property
    def num_trials(self) -> int:
        """Return N."""
        return self.flat_NP.shape[0]

    @property
    def stop(self) -> int:
        """Return the pack position after the group's last trial."""
        return self.start + self.num_trials

    def tensors(self, site: str) -> State:
        """Return the site's tensors, trained and anchors, stacked over the group's trials."""
        num_trials = self.flat_NP.shape[0]
        cuts = {name: cut.of(self.shared, num_trials) for name, cut in self.parts.get(site, {}).items()}
        return {**self.leaves[site], **self.anchors[site], **cuts}

    def own(self, site: str) -> Tensor:
        """Return 1 where a trained number of a site is the trial's own, 0 where it is padding; [N, P of the site]."""
        masks = []
        for name, leaf in self.leaves[site].items():
            mask = torch.zeros_like(leaf, requires_grad=False)
            for position, ranks in enumerate(self.ranks):
                shape = self.parametrisation.shape(name, ANY_SIZE, ANY_SIZE, ranks[site])
                mask[position][tuple(slice(size) for size in shape)] = 1
            masks.append(mask.flatten(1))
        return torch.cat(masks, dim=1)

    def part(self, site: str) -> Part:
        """Return what the group adds at a site."""
        return Part(self.parametrisation, self.tensors(site), self.scalings[site])

    def select(self, positions: Sequence[int], start: int, trains: bool = True) -> "Group":
        """Return a copy with only the trials at these positions within the group, beginning at `start` of the pack.

        One that does not train has zeros for gradients and moments, which take no memory and cannot be written to.
        """
        index = torch.tensor(positions, device=self.flat_NP.device)
        flat = self.flat_NP.detach().index_select(0, index)
        others = (self.grad_NP, self.moment1_NP, self.moment2_NP)
        nothing = flat.new_zeros(()).expand_as(flat)
        grad, moment1, moment2 = (one.index_select(0, index) if trains else nothing for one in others)
        scalings = {site: scaling_N.index_select(0, index) for site, scaling_N in self.scalings.items()}
        anchors = {
            site: {name: tensor.index_select(0, index) for name, tensor in state.items()}
            for site, state in self.anchors.items()
        }
        ranks = tuple(self.ranks[position] for position in positions)
        shared = {key: one if one.shape[0] == 1 else one.index_select(0, index) for key, one in self.shared.items()}
        buffers = (flat, grad, moment1, moment2)
        rest = (scalings, self.layout, anchors, ranks, shared, self.parts)
        return Group(self.parametrisation, start, *buffers, *rest)

    def share(self, first: int, last: int, start: int) -> "Group":
        """Return the trials from `first` to before `last`, as views of the same numbers, from `start` of a pack on.

        `data` has a version of its own: else autograd would take an update of other trials for one of these.
        """
        cut = slice(first, last)
        buffers = (self.flat_NP.data, self.grad_NP, self.moment1_NP, self.moment2_NP)
        flat, grad, moment1, moment2 = (buffer[cut] for buffer in buffers)
        scalings = {site: scaling_N[cut] for site, scaling_N in self.scalings.items()}
        anchors = {site: {name: tensor[cut] for name, tensor in state.items()} for site, state in self.anchors.items()}
        shared = {key: one if one.shape[0] == 1 else one[cut] for key, one in self.shared.items()}
        rest = (scalings, self.layout, anchors, self.ranks[cut], shared, self.parts)
        return Group(self.parametrisation, start, flat, grad, moment1, moment2, *rest)

    def trial_state(self, position: int) -> dict[str, State]:
        """Return one trial's tensors by site, the rank padding removed."""
        return {
            site: {
                name: _unpadded(tensor[position].detach(), name, self.ranks[position][site], self.parametrisation)
                for name, tensor in self.tensors(site).items()
            }
            for site in self.leaves
        }

    def unpacked(self, buffer_NP: Tensor, position: int) -> dict[str, State]:
        """Return one trial's part of a buffer like `flat_NP` by site, the rank padding removed."""
        found: dict[str, State] = {}
        for (site, name), (offset, shape) in self.layout.items():
            tensor = self._view(buffer_NP, offset, shape)[position]
            own = _unpadded(tensor, name, self.ranks[position][site], self.parametrisation)
            found.setdefault(site, {})[name] = own.clone()
        return found

    def pack(self, buffer_NP: Tensor, position: int, states: dict[str, State]) -> None:
        """Write one trial's tensors into its part of a buffer like `flat_NP`."""
        for (site, name), (offset, shape) in self.layout.items():
            self._view(buffer_NP, offset, shape)[position] = padded(states[site][name].to(buffer_NP), shape)


def padded(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return the tensor with zeros appended up to `shape`."""
    if tuple(tensor.shape) == shape:
        return tensor
    larger = tensor.new_zeros(shape)
    larger[tuple(slice(size) for size in tensor.shape)] = tensor
    return larger


def _unpadded(tensor: Tensor, name: str, rank: int, parametrisation: Parametrisation) -> Tensor:
    """Return the part of a padded tensor that belongs to `rank`; dimensions that do not depend on it are kept whole."""
    own = parametrisation.shape(name, ANY_SIZE, ANY_SIZE, rank)
    return tensor[tuple(slice(size) for size in own)].contiguous()
