"""PackedLinear: a frozen linear site that adds the adapters of the bound pack to the base's output.

The only module that touches the model: it takes the place of a site, calls the base once over all rows, and adds each
group's adapters as batched matmuls. Its input has a leading dimension N * rows, trial-major.
Shape letters: N trials, S token slots of a trial (rows x tokens), I in, O out.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from welltuned.models.base import Base
from welltuned.packing.dropout import Dropout
from welltuned.packing.state import PackState


class Binding:
    """What the packed sites of one model are bound to now: a pack's state, or None for the bare base."""

    def __init__(self) -> None:
        self.state: PackState | None = None
        self.dropout: Dropout | None = None


class PackedLinear(nn.Module):
    """Base output plus each group's adapters, for the state that `binding` holds at the time of the call."""

    def __init__(self, site: str, base: nn.Module, binding: Binding, index: int) -> None:
        super().__init__()
        self.site = site
        self.base = base
        self.binding = binding
        self.index = index  # of the site in the model, for the dropout stream

    def forward(self, x: Tensor) -> Tensor:
        """Map x [N * rows, ..., I] to [N * rows, ..., O]."""
        y = self.base(x)
        state = self.binding.state
        if state is None:
            return y
        y_NSO = y.reshape(state.num_trials, -1, y.shape[-1])
        x_NSI = x.reshape(state.num_trials, -1, x.shape[-1])
        if self.binding.dropout is not None:
            x_NSI = self.binding.dropout.apply(x_NSI, self.index)
        parts = [
            group.parametrisation.apply(
                y_NSO[group.start : group.stop],
                x_NSI[group.start : group.stop],
                group.tensors(self.site),
                group.scaling_N,
            )
            for group in state.groups
        ]
        return (parts[0] if len(parts) == 1 else torch.cat(parts)).view(y.shape)


class PackedModel:
    """A base whose sites are packed linears while this object is in use; `close` puts the base's own modules back."""

    def __init__(self, base: Base) -> None:
        self.base = base
        self.binding = Binding()
        for index, site in enumerate(base.sites):
            parent, name = base.parent(site)
            setattr(parent, name, PackedLinear(site, base.sites[site], self.binding, index))

    def close(self) -> None:
        """Put the base's own modules back."""
        for site, module in self.base.sites.items():
            parent, name = self.base.parent(site)
            setattr(parent, name, module)

    @contextmanager
    def bound(self, state: PackState | None, dropout: Dropout | None = None) -> Iterator[None]:
        """Bind the sites to a pack's state for the calls inside the block."""
        self.binding.state, self.binding.dropout = state, dropout
        try:
            yield
        finally:
            self.binding.state = self.binding.dropout = None
