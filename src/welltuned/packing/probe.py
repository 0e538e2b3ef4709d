"""The probes that run on every load: no cross-talk between trials, and no look at later tokens.

The first catches a model whose modules mix rows (batch statistics, expert routing, caches shared between rows), where
a packed trial would not be the trial trained alone; the second one that is not causal, for which right-padding is not
inert.
"""

import torch

from welltuned.errors import InputError
from welltuned.methods._low_rank import plain
from welltuned.packing.group import Group
from welltuned.packing.linear import PackedModel
from welltuned.packing.state import PackState, adapter_dtype


def check(model: PackedModel) -> None:
    """Raise InputError where the model cannot be trained in packs exactly."""
    check_cross_talk(model)
    check_causal(model)


def check_causal(model: PackedModel) -> None:
    """Raise InputError where a later token changes an earlier position's output."""
    ids_RT = torch.arange(2 * 6, device=model.base.device).view(2, 6) % model.base.vocab_size
    later_RT = ids_RT.clone()
    later_RT[:, -1] = (later_RT[:, -1] + 1) % model.base.vocab_size
    with torch.no_grad():
        same = torch.equal(model.base.features(ids_RT)[:, :-1], model.base.features(later_RT)[:, :-1])
    if not same:
        raise InputError(
            f"model.base: got {type(model.base.model).__name__}, expected a causal language model, but it sees later "
            "tokens; choose a decoder-only model"
        )


def check_cross_talk(model: PackedModel) -> None:
    """Raise InputError where a pack of two trials does not keep them apart."""
    state = _two_trials(model)
    ids_RT = (torch.arange(4 * 6, device=model.base.device).view(4, 6) * 7 + 3) % model.base.vocab_size
    before = _outputs(model, state, ids_RT)
    for leaves in state.groups[0].leaves.values():
        with torch.no_grad():
            leaves["B"][1] += 0.5
    after = _outputs(model, state, ids_RT)
    if not torch.equal(before[:2], after[:2]) or torch.equal(before[2:], after[2:]):
        raise InputError(
            f"model.base: got {type(model.base.model).__name__}, expected a model that treats each row by itself, but "
            "changing one trial's adapter changed another's output (or not its own); choose a dense causal model"
        )


def _outputs(model: PackedModel, state: PackState, ids_RT: torch.Tensor) -> torch.Tensor:
    with torch.no_grad(), model.bound(state):
        return model.base.features(ids_RT)


def _two_trials(model: PackedModel) -> PackState:
    """Return a rank-1 pack of two trials with A = 1 / I and B = 0."""
    base = model.base
    layout: dict[tuple[str, str], tuple[int, tuple[int, ...]]] = {}
    offset = 0
    for site in base.sites:
        num_out, num_in = base.shape(site)
        for name, shape in (("A", (1, num_in)), ("B", (num_out, 1))):
            layout[site, name] = (offset, shape)
            offset += shape[0] * shape[1]
    dtype = adapter_dtype(base.dtype)
    flat_NP = torch.zeros(2, offset, dtype=dtype, device=base.device)
    scalings = {site: torch.ones(2, dtype=dtype, device=base.device) for site in base.sites}
    anchors: dict = {site: {} for site in base.sites}
    group = Group.fresh(plain(), 0, flat_NP, scalings, layout, anchors, ({}, {}))
    for leaves in group.leaves.values():
        with torch.no_grad():
            leaves["A"].fill_(1 / leaves["A"].shape[-1])
    return PackState([group])
