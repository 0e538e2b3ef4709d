"""The trained state of a pack: its trials grouped by parametrisation and rank, from step 0 or from stored tensors.

Shape letters: N trials of a group, P numbers of a trial, I in, O out, R padded rank.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from welltuned import plugins, rng
from welltuned.methods._method import Context, Method, Parametrisation, State
from welltuned.models.base import Base
from welltuned.packing import continued, samples, whole
from welltuned.packing.adapter_file import Moments
from welltuned.packing.batch import RowTable
from welltuned.packing.group import Cut, Group, padded
from welltuned.packing.starts import Starts
from welltuned.records import Trial
from welltuned.spec import Spec


@dataclass
class PackState:
    """All groups of a pack; pack positions run through the groups in order."""

    groups: list[Group]

    @property
    def num_trials(self) -> int:
        """Return N of the whole pack."""
        return self.groups[-1].stop if self.groups else 0

    def accumulate(self, loss: Tensor) -> None:
        """Add the gradients of a loss to the groups' buffers."""
        leaves = [leaf for group in self.groups for leaf in group.parameters()]
        views = [view for group in self.groups for view in group.grads]
        # a model may have parameters that it does not use
        gradients = torch.autograd.grad(loss, leaves, materialize_grads=bool(self.whole))
        torch._foreach_add_(views, gradients)  # pyright: ignore[reportPrivateImportUsage]

    @property
    def at_sites(self) -> list[Group]:
        """Return the groups that act at the sites: all but one that trains the whole model."""
        return [group for group in self.groups if not group.parametrisation.whole]

    @property
    def whole(self) -> dict[str, State]:
        """Return the changes of all parameters, by name, where the pack's one trial trains the whole model."""
        groups = [group for group in self.groups if group.parametrisation.whole]
        return {name: group.tensors(name) for group in groups for name in group.leaves}

    def select(self, positions: Sequence[int], trains: bool = True) -> "PackState":
        """Return a copy with only the trials at these pack positions, in the same order; to compute with, or train."""
        groups: list[Group] = []
        start = 0
        for group in self.groups:
            inside = [position - group.start for position in positions if group.start <= position < group.stop]
            if inside:
                groups.append(group.select(inside, start, trains))
                start += len(inside)
        return PackState(groups)

    def deal(self, number: int) -> list[tuple["PackState", list[int]]]:
        """Deal out the trials of every group, so that shares differ by no more than one trial, in a group and in all.

        Return for each share a state that consists of views of these numbers, and the pack positions of its trials.
        """
        if number == 1:
            return [(self, list(range(self.num_trials)))]
        groups: list[list[Group]] = [[] for _ in range(number)]
        positions: list[list[int]] = [[] for _ in range(number)]
        for group in self.groups:
            each, rest = divmod(group.num_trials, number)
            fewest_first = sorted(range(number), key=lambda share: len(positions[share]))
            first = 0
            for share in range(number):
                size = each + (share in fewest_first[:rest])
                if size:
                    groups[share].append(group.share(first, first + size, len(positions[share])))
                    positions[share] += range(group.start + first, group.start + first + size)
                first += size
        return [(PackState(own), places) for own, places in zip(groups, positions, strict=True)]

    def trial_state(self, position: int) -> dict[str, State]:
        """Return the tensors of the trial at a pack position, by site."""
        group, place = self._place(position)
        return group.trial_state(place)

    def trial_moments(self, position: int) -> tuple[dict[str, State], dict[str, State]]:
        """Return the optimizer's first and second moments of the trial at a pack position, by site."""
        group, place = self._place(position)
        first, second = (group.unpacked(buffer, place) for buffer in (group.moment1_NP, group.moment2_NP))
        return first, second

    def put_moments(self, position: int, moments: Moments) -> None:
        """Give the trial at a pack position the moments that an optimizer left."""
        group, place = self._place(position)
        for buffer, states in ((group.moment1_NP, moments.first), (group.moment2_NP, moments.second)):
            group.pack(buffer, place, states)

    def zero(self, position: int) -> None:
        """Make the numbers of the trial at a pack position and their gradients zero."""
        group, place = self._place(position)
        group.flat_NP[place] = 0
        group.grad_NP[place] = 0

    def _place(self, position: int) -> tuple[Group, int]:
        group = next(group for group in self.groups if group.start <= position < group.stop)
        return group, position - group.start


def group_key(trial: Trial) -> tuple[object, ...]:
    """Return what trials of one group share: parametrisation, method source, and rank within a factor of 2.

    Where ranks cannot be padded, it is the same rank at every site.
    """
    config = trial.config
    method: Method = plugins.load("methods", config.method)
    form = method.parametrisation()
    ranks: tuple[object, ...] = (config.rank.bit_length() if method.uses_rank else 0,)
    if not form.padded:
        ranks = (config.rank, config.rank_pattern, config.clamp_rank)
    return (form.name, config.method if ":" in config.method else "", *ranks)


def grouped(trials: Sequence[Trial]) -> list[Trial]:
    """Return the trials in pack order: groups contiguous, otherwise as given."""
    keys = list(dict.fromkeys(group_key(trial) for trial in trials))
    return sorted(trials, key=lambda trial: keys.index(group_key(trial)))


def initial(base: Base, trials: Sequence[Trial], table: RowTable | None = None) -> PackState:
    """Return the step-0 state of trials in pack order (`grouped`); some methods start from rows of the table."""
    states = continued.starts(trials, _initial_states(base, trials, table))
    state = assemble(base, trials, states)
    for position, trial in enumerate(trials):
        if trial.config.start_step:
            state.put_moments(position, continued.moments(trial.config))
    return state


def assemble(base: Base, trials: Sequence[Trial], states: Sequence[dict[str, State]]) -> PackState:
    """Return the pack state of given one-trial states, with zero gradients and moments."""
    alone = len(trials) == 1 or not any(_is_whole(trial) for trial in trials)
    assert alone, "a trial that trains the whole model has a pack to itself"
    groups: list[Group] = []
    start = 0
    while start < len(trials):
        key = group_key(trials[start])
        stop = start
        while stop < len(trials) and group_key(trials[stop]) == key:
            stop += 1
        groups.append(_group(base, trials[start:stop], states[start:stop], start))
        start = stop
    return PackState(groups)


def _initial_states(base: Base, trials: Sequence[Trial], table: RowTable | None) -> list[dict[str, State]]:
    """Initialise site by site, so that work on a weight (an SVD) is done once for all trials and then dropped."""
    if _is_whole(trials[0]):
        return [whole.start(base) for _ in trials]
    states: list[dict[str, State]] = [{} for _ in trials]
    methods: list[Method] = [plugins.load("methods", trial.config.method) for trial in trials]
    looks = [samples.look_of(trial, method, table) for trial, method in zip(trials, methods, strict=True)]
    for sites in samples.parts(base, dict.fromkeys(looks)):
        contexts = {look: samples.contexts(base, table, look, sites) for look in dict.fromkeys(looks)}
        for site in sites:
            weight_OI = base.weight(site)
            here = _Site(site, weight_OI, Starts(weight_OI), {})
            for trial, method, look, state in zip(trials, methods, looks, states, strict=True):
                state[site] = here.start(trial, method, look, contexts[look][site])
    return states


@dataclass
class _Site:
    """A site while its trials start."""

    name: str
    weight_OI: Tensor
    starts: Starts
    analyses: dict[tuple, Any]

    def start(self, trial: Trial, method: Method, look: samples.Look, context: Context) -> State:
        """Return a trial's tensors at step 0."""

        def compute() -> State:
            key = (method.analyse, look)
            if method.analyse is not None and key not in self.analyses:
                self.analyses[key] = method.analyse(self.weight_OI, context)
            return _initial_state(self.weight_OI, method, self.analyses.get(key), trial, self.name)

        config = trial.config
        rank, scaling = site_rank(trial, self.name, self.weight_OI.shape), site_scaling(trial, self.name)
        facts = (config.method, config.method_version, config.method_source, rank, scaling)
        return self.starts.get(method, facts, compute)


def _initial_state(weight_OI: Tensor, method: Method, analysis: object, trial: Trial, site: str) -> State:
    config = trial.config
    path = (config.init_seed,) if method.shared_stream else (config.init_seed, site)
    generator = torch.Generator().manual_seed(rng.seed_of(config.study_seed, "init", *path))
    rank, scaling = site_rank(trial, site, weight_OI.shape), site_scaling(trial, site)
    state = method.init(weight_OI, analysis, rank, scaling, generator)
    dtype = adapter_dtype(weight_OI.dtype)
    return {name: tensor.to(dtype) for name, tensor in state.items()}


def site_rank(trial: Trial, site: str, shape: Sequence[int]) -> int:
    """Return the trial's rank on a site's weight [O, I]."""
    num_out, num_in = shape
    return trial.config.rank_at(site, num_out, num_in)


def site_scaling(trial: Trial, site: str) -> float:
    """Return the trial's effective multiplier at a site."""
    config = trial.config
    if not config.rank_pattern and not config.alpha_pattern:
        return config.scaling
    return Spec.multiplier(config.alpha_at(site), config.wanted_rank_at(site))


def num_trainable(base: Base, trial: Trial) -> int:
    """Count the numbers that a trial trains over all sites."""
    if _is_whole(trial):
        return sum(placed.parameter.numel() for placed in base.parameters.values())
    method: Method = plugins.load("methods", trial.config.method)
    shapes = {site: base.shape(site) for site in base.sites}
    return sum(method.num_trainable(*shape, site_rank(trial, site, shape)) for site, shape in shapes.items())


def _is_whole(trial: Trial) -> bool:
    return plugins.load("methods", trial.config.method).parametrisation().whole


def adapter_dtype(base_dtype: torch.dtype) -> torch.dtype:
    """Return float64 for a float64 base, else float32."""
    return torch.float64 if base_dtype == torch.float64 else torch.float32


def _group(base: Base, trials: Sequence[Trial], states: Sequence[dict[str, State]], start: int) -> Group:
    method: Method = plugins.load("methods", trials[0].config.method)
    parametrisation = method.parametrisation()
    ranks = tuple(_ranks(base, trial, parametrisation) for trial in trials)
    shapes = whole.shapes(base) if parametrisation.whole else _shapes(base, parametrisation, ranks)
    layout: dict[tuple[str, str], tuple[int, tuple[int, ...]]] = {}
    offset = 0
    for (site, name), shape in shapes.items():
        if name in parametrisation.trained:
            layout[site, name] = (offset, shape)
            offset += math.prod(shape)
    dtype, device = adapter_dtype(base.dtype), base.device
    flat_NP = torch.zeros(len(trials), offset, dtype=dtype, device=device)
    anchors: dict[str, State] = {site: {} for site, _ in shapes}
    shared, parts = _shared(parametrisation, states, shapes, ranks)
    for (site, name), shape in shapes.items():
        if name in parametrisation.shared:
            continue
        stacked = torch.stack([padded(state[site][name], shape) for state in states]).to(device, dtype)
        if name in parametrisation.trained:
            first = layout[site, name][0]
            flat_NP[:, first : first + stacked[0].numel()] = stacked.flatten(1)
        else:
            anchors[site][name] = stacked
    scalings = {
        site: torch.tensor([site_scaling(trial, site) for trial in trials], dtype=dtype, device=device)
        for site in base.sites
    }
    group = Group.fresh(parametrisation, start, flat_NP, scalings, layout, anchors, ranks)
    group.shared |= {key: tensor.to(device, dtype) for key, tensor in shared.items()}
    group.parts |= parts
    return group


def _shared(
    parametrisation: Parametrisation,
    states: Sequence[dict[str, State]],
    shapes: dict[tuple[str, str], tuple[int, ...]],
    ranks: Sequence[dict[str, int]],
) -> tuple[dict[str, Tensor], dict[str, dict[str, Cut]]]:
    """Return the anchors that sites share, once for all sites of a rank, and once for trials that have the same."""
    places: dict[str, list[tuple[str, str]]] = {}  # key -> (site, name) of each part of one tensor
    parts: dict[str, dict[str, Cut]] = {}
    for (site, name), shape in shapes.items():
        if name in parametrisation.shared:
            key = f"{name} {[rank[site] for rank in ranks]}"
            parts.setdefault(site, {})[name] = Cut(key, shape)
            places.setdefault(key, []).append((site, name))
    shared: dict[str, Tensor] = {}
    for key, held in places.items():
        largest = tuple(map(max, zip(*(shapes[place] for place in held), strict=True)))
        found = [_joined([state[site][name] for site, name in held], largest) for state in states]
        alike = all(torch.equal(found[0], other) for other in found[1:])
        shared[key] = torch.stack(found[:1] if alike else found)
    return shared, parts


def _joined(parts: Sequence[Tensor], shape: tuple[int, ...]) -> Tensor:
    """Return the tensor of which the parts are the first rows and columns; where it has more, zeros."""
    joined = parts[0].new_zeros(shape)
    for part in parts:
        joined[tuple(slice(size) for size in part.shape)] = part
    return joined


def _ranks(base: Base, trial: Trial, parametrisation: Parametrisation) -> dict[str, int]:
    """Return the trial's rank on every weight; a parametrisation of the whole model has none."""
    if parametrisation.whole:
        return dict.fromkeys(base.parameters, 0)
    return {site: site_rank(trial, site, base.shape(site)) for site in base.sites}


def _shapes(
    base: Base, parametrisation: Parametrisation, ranks: Sequence[dict[str, int]]
) -> dict[tuple[str, str], tuple[int, ...]]:
    """Return the shape of every tensor of every site, padded to the trials' largest rank."""
    return {
        (site, name): parametrisation.shape(name, *base.shape(site), max(rank[site] for rank in ranks))
        for site in base.sites
        for name in parametrisation.trained + parametrisation.anchors
    }
