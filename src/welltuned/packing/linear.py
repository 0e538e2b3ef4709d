"""PackedLinear: a frozen linear site that adds the adapters of the bound pack to the base's output.

The only module that touches the model: it takes the place of a site, computes each group's change by batched matmuls,
and adds the base's output to it by one matmul over its rows. Its input has a leading dimension of lines or padded rows,
as many for each trial, trial-major. Shape letters: N trials, L lines or rows of all trials, S token slots of a trial,
I in, O out.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn

from welltuned.methods._method import Frozen
from welltuned.models import unpadded
from welltuned.models.base import Base
from welltuned.models.quantised import product, shape_of, weight_of
from welltuned.models.summed import bare, summed
from welltuned.models.unpadded import Places
from welltuned.packing import whole
from welltuned.packing.blocks import Blocks, any_number
from welltuned.packing.dropout import Dropout
from welltuned.packing.group import Part
from welltuned.packing.state import PackState


class PackedLinear(nn.Module):
    """Base output plus each group's adapters, for the parts that it is bound to at the time of the call."""

    def __init__(self, base: nn.Module, index: int) -> None:
        super().__init__()
        self.base = base
        self.index = index  # of the site in the model, for the dropout stream
        self.parts: tuple[Part, ...] = ()  # one for each group of the pack; none: the bare base
        self.dropout: Dropout | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Map x [L, ..., I] to [L, ..., O]."""
        if not self.parts:
            return bare(self.base, x)
        sizes = [part.scaling_N.shape[0] for part in self.parts]
        x_NSI = x.reshape(sum(sizes), -1, x.shape[-1])
        seen_NSI = x_NSI if self.dropout is None else self.dropout.apply(x_NSI, self.index)
        if len(sizes) == 1:
            y_NSO = self._adapted(self.parts[0], x_NSI, seen_NSI)
        else:
            inputs = x_NSI.split(sizes)
            seen = inputs if self.dropout is None else seen_NSI.split(sizes)
            y_NSO = torch.cat([self._adapted(*own) for own in zip(self.parts, inputs, seen, strict=True)])
        return y_NSO.view(*x.shape[:-1], y_NSO.shape[-1])  # -1 would be a quotient to the compiler, and slow to trace

    def _adapted(self, part: Part, x_NSI: Tensor, seen_NSI: Tensor) -> Tensor:
        """Return the output of one group's trials; its adapters see x after dropout, or x itself."""
        frozen = self.frozen(x_NSI)
        change_NSO = part.change(seen_NSI, frozen)
        return summed(self.base, x_NSI, change_NSO, frozen.product_NSO)

    def frozen(self, input_NSI: Tensor | None = None) -> Frozen:
        """Return the frozen layer, for a call in which it reads this itself."""
        return Frozen(shape_of(self.base)[0], self._weight, self._product, input_NSI)

    def _weight(self) -> Tensor:
        """Return the base's weight, [O, I]."""
        return weight_of(self.base)

    def _product(self, x: Tensor) -> Tensor:
        """Return x W^T."""
        return product(self.base, x)


class PackedModel:
    """A base whose sites are packed linears while this object is in use; `close` puts the base's own modules back."""

    def __init__(self, base: Base) -> None:
        self.base = base
        self.linears: dict[str, PackedLinear] = {}
        for index, site in enumerate(base.sites):
            parent, name = base.parent(site)
            self.linears[site] = PackedLinear(base.sites[site], index)
            setattr(parent, name, self.linears[site])
        self.blocks = Blocks(base)

    def twin(self) -> "PackedModel":
        """Return modules of its own on the same weights, which another thread binds to other trials."""
        return PackedModel(self.base.twin())

    def close(self) -> None:
        """Put the base's own modules back."""
        for site, module in self.base.sites.items():
            parent, name = self.base.parent(site)
            setattr(parent, name, module)

    @contextmanager
    def bound(
        self,
        state: PackState | None,
        dropout: Dropout | None = None,
        compiled: bool = False,
        recompute: bool = False,
        places: Places | None = None,
    ) -> Iterator[None]:
        """Bind the sites to a pack's state for the calls inside the block, and say how the decoder's blocks run.

        `places` are those of the lines that the model reads there.
        """
        for site, linear in self.linears.items():
            linear.parts = () if state is None else tuple(group.part(site) for group in state.at_sites)
            linear.dropout = dropout
            for part in linear.parts if compiled else ():
                any_number((*part.tensors.values(), part.scaling_N))
        try:
            changes = {} if state is None else state.whole
            in_lines = nullcontext() if places is None else unpadded.reading(self.base.model, places)
            with whole.in_place(self.base, changes), self.blocks.running(compiled, recompute, places), in_lines:
                yield
        finally:
            for linear in self.linears.values():
                linear.parts, linear.dropout = (), None
