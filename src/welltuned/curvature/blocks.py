"""Many blocks of the Hessian at one point: gradients, their spread over rows, and products with N vectors at once.

A block is one trial's trained tensors at one site. All blocks here share the point at which the model is linearised:
at the start that is the base, whatever the method; later a trial's own state. Rows come in chunks, so that a pass has
a bounded number of tokens; the graphs of as many chunks as a budget allows are kept between products, the others are
built again each time.
Shape letters: N blocks, P numbers of a block padded to the longest, R rows, T tokens, O out, I in.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from welltuned.curvature.linearised import Linearised
from welltuned.curvature.local import Local
from welltuned.curvature.rows import Rows, Spread
from welltuned.packing.linear import PackedModel
from welltuned.packing.state import Group, PackState

CHUNK_SHARE = 0.25  # of the memory for graphs goes to one chunk at most, so that it fits beside those kept; assumed


class Member(NamedTuple):
    """Trials of one parametrisation at one site: as many blocks."""

    site: str
    group: Group


class Gradients(NamedTuple):
    """The gradient of the mean loss for each block, what one row adds to its variance, and dL/dW by site."""

    mean_NP: Tensor
    variance_NP: Tensor | None  # None of a single row
    weights: dict[str, Tensor]  # [O, I]


class _Chunk(NamedTuple):
    linearised: Linearised
    locals: list[Local]
    rows: np.ndarray
    num_bytes: int


class Blocks:
    """The blocks of some members at one point (`state` of one trial, or None: the base)."""

    def __init__(
        self, model: PackedModel, state: PackState | None, members: Sequence[Member], rows: Rows, kept_bytes: int
    ) -> None:
        self.model, self.state, self.members, self.rows = model, state, members, rows
        self.sites = tuple(dict.fromkeys(member.site for member in members))
        self.sizes = [member.group.flat_NP.shape[0] for member in members]
        self.num_blocks = sum(self.sizes)
        masks = [member.group.own(member.site) for member in members]
        self.length = max(mask.shape[1] for mask in masks)
        self.own_NP = torch.cat([padded(mask, self.length) for mask in masks])
        self._kept: dict[int, _Chunk] = {}
        self._left_bytes = kept_bytes
        row_bytes = self._chunk(rows.longest).num_bytes  # of a large model a few rows' graphs fill the memory
        self._pieces = rows.chunks(self.num_blocks, max(1, int(kept_bytes * CHUNK_SHARE) // max(1, row_bytes)))

    def _chunks(self) -> Iterator[_Chunk]:
        for number, piece in enumerate(self._pieces):
            chunk = self._kept.get(number) or self._chunk(piece)
            if number not in self._kept and chunk.num_bytes <= self._left_bytes:
                self._kept[number] = chunk
                self._left_bytes -= chunk.num_bytes
            yield chunk

    def _chunk(self, rows: np.ndarray) -> _Chunk:
        block = self.rows.table.block([rows], len(rows))
        saved = Saved(self.model.base.model)
        with saved.counting():
            linearised = Linearised(self.model, self.state, block, self.sites, self.rows.num_targets)
            locals_ = [Local(member.group.part(member.site), linearised.seen[member.site]) for member in self.members]
        return _Chunk(linearised, locals_, rows, saved.num_bytes)

    def gradients(self) -> Gradients:
        """Return the gradients and their spread over the rows."""
        spreads = [Spread(len(self.rows.numbers), own_P) for own_P in self.own_NP]
        weights: dict[str, Tensor] = {}
        for chunk in self._chunks():
            for site, seen in chunk.linearised.seen.items():
                part_OI = seen.d.flatten(0, -2).T @ seen.x.flatten(0, -2)
                weights[site] = weights[site] + part_OI if site in weights else part_OI
            by_row = (rows_RP for local in chunk.locals for rows_RP in local.by_row())
            for spread, rows_RP in zip(spreads, by_row, strict=True):
                spread.add(rows_RP, self.rows.shares(chunk.rows))
        return gradients(spreads, self.own_NP, weights)

    def hessian(self, v_NP: Tensor, numbers: Sequence[int]) -> Tensor:
        """Return H v for the blocks of these numbers."""
        return self._product(v_NP, numbers, Linearised.hessian, True)

    def gauss_newton(self, v_NP: Tensor, numbers: Sequence[int]) -> Tensor:
        """Return the Gauss-Newton matrix times v for the blocks of these numbers."""
        return self._product(v_NP, numbers, Linearised.gauss_newton, False)

    def _product(
        self,
        v_NP: Tensor,
        numbers: Sequence[int],
        through: Callable[[Linearised, Sequence[Tensor]], Sequence[Tensor]],
        has_second: bool,
    ) -> Tensor:
        whole_NP = torch.zeros_like(self.own_NP)
        whole_NP[list(numbers)] = v_NP
        result_NP = torch.zeros_like(whole_NP)
        live = torch.as_tensor(list(numbers), device=v_NP.device)
        # members whose recurrences have all ended cost nothing
        running = [place for place in range(len(self.members)) if self._inside(place, live).any()]
        for chunk in self._chunks():
            moved: dict[int, Tensor] = {}
            for place in running:
                where = self._range(place)
                moved[place], second_NP = chunk.locals[place].forth(whole_NP[where])
                if has_second:
                    result_NP[where, : second_NP.shape[1]] += second_NP
            answers = through(chunk.linearised, self._placed(chunk, moved, live))
            for place in running:
                where, mine = self._range(place), self._inside(place, live)
                answer = answers[self.sites.index(self.members[place].site)]
                change = answer.new_zeros(self.sizes[place], *answer.shape[1:])
                change[live[mine] - where.start] = answer[mine]
                back_NP = chunk.locals[place].back(change)
                result_NP[where, : back_NP.shape[1]] += back_NP
        return (result_NP * self.own_NP)[list(numbers)]

    def _inside(self, place: int, live: Tensor) -> Tensor:
        """Say which of the live blocks are a member's."""
        where = self._range(place)
        return (live >= where.start) & (live < where.stop)

    def _range(self, number: int) -> slice:
        """Return the blocks of a member."""
        start = sum(self.sizes[:number])
        return slice(start, start + self.sizes[number])

    def _placed(self, chunk: _Chunk, moved: dict[int, Tensor], live: Tensor) -> list[Tensor]:
        """Return the changes of every site's output for the live blocks: zero but at a block's own site."""
        changes = []
        for site in self.sites:
            d = chunk.linearised.seen[site].d
            whole = d.new_zeros(self.num_blocks, *d.shape)
            for place, change in moved.items():
                if self.members[place].site == site:
                    whole[self._range(place)] = change
            changes.append(whole[live])
        return changes


def gradients(spreads: Sequence[Spread], own_NP: Tensor, weights: dict[str, Tensor]) -> Gradients:
    """Collect what the rows' gradients add up to; what is padding is zero."""
    variances = [variance_P for spread in spreads if (variance_P := spread.variance()) is not None]
    mean_NP = torch.stack([spread.mean_P for spread in spreads])
    return Gradients(mean_NP * own_NP, torch.stack(variances) * own_NP if variances else None, weights)


def padded(tensor_NP: Tensor, length: int) -> Tensor:
    """Return vectors with zeros appended up to a length."""
    return torch.nn.functional.pad(tensor_NP, (0, length - tensor_NP.shape[1]))


class Saved:
    """Counts what graphs keep: every tensor that is saved for a backward pass, once; not what the model holds."""

    def __init__(self, network: nn.Module) -> None:
        held = (*network.parameters(), *network.buffers())
        self._held = {tensor.untyped_storage().data_ptr() for tensor in held}
        self._seen: dict[int, int] = {}

    @property
    def num_bytes(self) -> int:
        """Return the bytes kept."""
        return sum(self._seen.values())

    def counting(self) -> AbstractContextManager[object]:
        """Return the context in which graphs are built."""
        return torch.autograd.graph.saved_tensors_hooks(self._note, lambda tensor: tensor)

    def _note(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._held:
            self._seen[storage.data_ptr()] = storage.nbytes()
        return tensor
