"""Measures the curvature of a study's trials: at the start, and after chosen numbers of optimizer steps.

At the start all methods share one point, the base, so that their blocks are measured together, some sites of a
decoder layer at a time (what lies below them is not differentiated). After training each trial has a point of its own.
"""

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from welltuned import data, plugins, rng
from welltuned.analysis.curvature import JOINT, BlockRow
from welltuned.costs import flops
from welltuned.curvature.blocks import Blocks, Member
from welltuned.curvature.joint import Joint
from welltuned.curvature.lanczos import Effort
from welltuned.curvature.measure import Counted, Facts, Operator, measure, spectral_norms
from welltuned.curvature.points import Point, chosen, trained
from welltuned.curvature.rows import TOKENS_PER_PASS, Rows
from welltuned.errors import InputError, problem, suggestion
from welltuned.evaluate.nll import validation_nll
from welltuned.executors.allocator import keep_freed_memory
from welltuned.models import base as bases
from welltuned.packing import probe
from welltuned.packing.batch import RowTable
from welltuned.packing.linear import PackedModel
from welltuned.packing.state import grouped, initial
from welltuned.records import Config, Role, Runtime, Trial

KEPT_SHARE = 0.6  # of the memory that may be used goes to graphs that are kept between products; assumed
SPLITS = ("train", "validation")


@dataclass(frozen=True)
class Request:
    """What is to be measured, of which trials, on how many rows."""

    configs: tuple[Config, ...]
    num_rows: int
    steps: tuple[int, ...] = (0,)
    blocks: tuple[str, ...] = ()  # names of sites, ends of names, or "joint"; none: all
    effort: Effort = field(default_factory=Effort)


@dataclass(frozen=True)
class Progress:
    """How far a measurement is."""

    done: int  # blocks
    total: int
    doing: str
    num_products: int = 0  # with matrices, so far in this pass


def refuse(request: Request) -> None:
    """Raise InputError, with every reason, where these trials cannot be measured together."""
    configs, problems = request.configs, []
    if len({config.data_key() for config in configs}) > 1:
        expected = "one base model and one task with its data"
        problems.append(problem("study", "several problems", expected, "make it one study for each"))
    for method in dict.fromkeys(config.method for config in configs):
        if plugins.load("methods", method).parametrisation().whole:
            expected = "a method whose tensors belong to sites"
            problems.append(problem("method", method, expected, "leave it out; 'full' has the adapted layers' weights"))
    if any(config.dropout for config in configs):
        got = max(config.dropout for config in configs)
        advice = "set dropout = 0: the Hessian of a loss that is drawn at random changes from product to product"
        problems.append(problem("train.dropout", got, "0", advice))
    if any(step < 0 for step in request.steps):
        problems.append(problem("--steps", min(request.steps), "0 or more", "write --steps 0 --steps 10, for instance"))
    longest, fewest = max(request.steps), min(flops.num_steps(config) for config in configs)
    if longest > fewest:
        problems.append(problem("--steps", longest, f"at most {fewest}, the steps of the shortest trial", "lower it"))
    smallest = min(config.num_train for config in configs)
    if not 1 <= request.num_rows <= smallest:
        expected = f"1 to {smallest}, the training rows of the study"
        problems.append(problem("--samples", request.num_rows, expected, "lower it, or raise num_train"))
    if problems:
        raise InputError(problems)


class Survey:
    """One measurement: a base, its rows, and the sites that are looked at."""

    def __init__(self, request: Request, runtime: Runtime, memory_bytes: int) -> None:
        refuse(request)
        torch.set_num_threads(runtime.threads)
        keep_freed_memory()
        self.request, self.runtime = request, runtime
        self.kept_bytes = int(KEPT_SHARE * memory_bytes)
        first = request.configs[0]
        # a residual in bfloat16 would be rounding
        dtype = "float64" if first.dtype == "float64" else "float32"
        arguments = (first.base, first.revision, dtype, first.target_modules, runtime.device, first.quantization)
        base = bases.load(*arguments)
        self.model = PackedModel(base)
        probe.check(self.model)
        self.train, self.validation = self._load()
        self.rows = Rows(self.train, data.subset(first, len(self.train.lengths))[: request.num_rows])
        self.sites = sites_of(request.blocks, tuple(base.sites))
        self.has_joint = not request.blocks or JOINT in request.blocks
        self.trials = chosen(request.configs, request.steps)
        self.ended: list[str] = []  # trials that had ended before they could be measured, with the reason
        check_repeatable(self.model, self.rows, Rows(self._load()[0], self.rows.numbers))

    def _load(self) -> tuple[RowTable, RowTable]:
        tokenizer = self.model.base.tokenizer
        rows = data.load(data.widest(self.request.configs), tokenizer, SPLITS)
        train, validation = (RowTable(rows[split], tokenizer.eos_token_id, self.model.base.device) for split in SPLITS)
        return train, validation

    @property
    def num_blocks(self) -> int:
        """Return how many blocks will be measured."""
        return sum(len(configs) for configs in self.trials.values()) * (len(self.sites) + self.has_joint)

    def blocks(
        self, done: Collection[tuple[object, ...]] = (), tell: Callable[[Progress], None] = lambda progress: None
    ) -> Iterator[tuple[BlockRow, ...]]:
        """Yield the rows of one pass after another; passes whose rows are `done` (their keys) are left out."""
        num_done = 0
        for point in self._points():
            for sites in self._passes(len(point.configs)):
                names = sites or [JOINT]
                now = Progress(num_done, self.num_blocks, f"{point.label}, {_label(names)}")
                tell(now)
                num_done += len(names) * len(point.configs)
                if any(point.key(config, name) not in done for config in point.configs for name in names):
                    yield self._measure(point, sites, lambda made, now=now: tell(replace(now, num_products=made)))
        tell(Progress(self.num_blocks, self.num_blocks, "done"))

    def _passes(self, num_trials: int) -> Iterator[list[str]]:
        """Yield the sites that are measured together; then none, which stands for the joint block."""
        yield from passes(self.sites, num_trials, self.rows)
        if self.has_joint:
            yield []

    def _points(self) -> Iterator[Point]:
        if 0 in self.trials:
            trials = grouped([Trial(config, Role.SELECT) for config in self.trials[0]])
            configs = tuple(trial.config for trial in trials)
            yield Point(0, configs, initial(self.model.base, trials, self.train))
        steps = [step for step in self.trials if step > 0]
        if steps:
            configs = self.trials[steps[0]]
            yield from trained(self.model, configs, (self.train, self.validation), steps, self.runtime, self.ended)

    def _measure(self, point: Point, sites: Sequence[str], tell: Callable[[int], None]) -> tuple[BlockRow, ...]:
        members = [Member(site, group) for site in sites for group in point.state.groups]
        operator: Operator
        if sites:
            operator = Blocks(self.model, point.shared, members, self.rows, self.kept_bytes)
        else:
            operator = Joint(self.model, point.state, self.rows, self.kept_bytes)
        gradients = operator.gradients()
        norms = spectral_norms(gradients.weights)
        preconditioner_NP = point.preconditioner(sites, operator.length)
        start_NP = self._start(operator, sites)
        facts = measure(Counted(operator, tell), start_NP, gradients, preconditioner_NP, self.request.effort)
        losses = validation_nll(self.model, point.state, self.train, self.rows.numbers)
        found = []
        places = [(name, number) for name in sites or [JOINT] for number in range(len(point.configs))]
        for (name, number), fact in zip(places, facts, strict=True):
            about = About(self.rows, losses[number], point.scaling(name, number), norms.get(name))
            found.append(row_of(point, number, name, about, fact))
        return tuple(found)

    def _start(self, operator: Operator, sites: Sequence[str]) -> Tensor:
        seed = rng.seed_of(self.request.configs[0].study_seed, "curvature", *sites)
        one_P = torch.randn(operator.length, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        return one_P.to(operator.own_NP).expand(operator.num_blocks, -1)


class About(NamedTuple):
    """What a row says beside what was measured of its block."""

    rows: Rows
    loss_nats: float
    scaling: float | None
    weight_gradient_norm: float | None


def row_of(point: Point, number: int, block: str, about: About, facts: Facts) -> BlockRow:
    """Return what is stored of a block."""
    config, started = point.configs[number], point.step == 0
    spectra = [facts.hessian, facts.gauss_newton, *([facts.preconditioned] if facts.preconditioned else [])]
    top = None if facts.preconditioned is None else facts.preconditioned.largest
    return BlockRow(
        trial=point.trial_id(config),
        method=config.method,
        rank=config.rank,
        alpha=config.alpha,
        step=point.step,
        batch_size=None if started else config.batch_size,
        learning_rate=None if started else config.learning_rate,
        block=block,
        scaling=about.scaling,
        num_numbers=facts.num_numbers,
        num_rows=len(about.rows.numbers),
        num_tokens=about.rows.num_targets,
        loss_nats=about.loss_nats,
        hessian_max=facts.hessian.largest.value,
        hessian_max_error=facts.hessian.largest.error,
        hessian_min=facts.hessian.smallest.value,
        hessian_min_error=facts.hessian.smallest.error,
        gauss_newton_max=facts.gauss_newton.largest.value,
        gauss_newton_max_error=facts.gauss_newton.largest.error,
        preconditioned_max=None if top is None else top.value,
        preconditioned_max_error=None if top is None else top.error,
        sign_curvature=facts.sign_curvature,
        gradient_l1=facts.gradient_l1,
        gradient_norm=facts.gradient_norm,
        noise_trace=facts.noise_trace,
        weight_gradient_norm=about.weight_gradient_norm,
        num_products=sum(spectrum.num_products for spectrum in spectra),
        converged=all(spectrum.converged for spectrum in spectra),
    )


def passes(sites: Sequence[str], num_trials: int, rows: Rows) -> list[list[str]]:
    """Return the sites that are measured together: neighbours in one decoder layer, as long as a pass has room.

    What lies below the lowest site of a pass is not differentiated, so that sites that are measured together cost what
    the lowest costs; where a site's own vectors fill a pass, nothing is gained that would pay for this.
    """
    num_tokens = num_trials * int(rows.table.lengths[rows.numbers].sum())
    found: list[list[str]] = []
    for site in sites:
        together = found and layer_of(found[-1][0]) == layer_of(site)
        if together and (len(found[-1]) + 1) * num_tokens <= TOKENS_PER_PASS:
            found[-1].append(site)
        else:
            found.append([site])
    return found


def layer_of(site: str) -> str:
    """Return the decoder layer of a site: its name up to the first number.

    >>> layer_of("model.layers.11.self_attn.q_proj"), layer_of("head")
    ('model.layers.11', 'head')
    """
    found = re.match(r"(?:[^.]+\.)*?[0-9]+(?=\.)", site)
    return found.group() if found else site


def sites_of(blocks: Sequence[str], sites: Sequence[str]) -> tuple[str, ...]:
    """Return the sites that names, or dotted ends of names, mean; all where none is named."""
    wanted = [name for name in blocks if name != JOINT]
    problems = []
    for name in wanted:
        if not any(_means(name, site) for site in sites):
            known = [JOINT, *sorted({site.rpartition(".")[2] for site in sites})]
            problems.append(f"--blocks: got '{name}', which is no adapted module; {suggestion(name, known)}")
    if problems:
        raise InputError(problems)
    return tuple(site for site in sites if not blocks or any(_means(name, site) for name in wanted))


def _means(name: str, site: str) -> bool:
    return f".{site}".endswith(f".{name}") or site.startswith(f"{name}.")


def check_repeatable(model: PackedModel, rows: Rows, again: Rows) -> None:
    """Raise InputError where the rows, read twice, are not the same rows with the same loss, to the bit."""
    same = all(
        np.array_equal(getattr(rows.table, name)[rows.numbers], getattr(again.table, name)[again.numbers])
        for name in ("ids", "lengths", "prompt_lengths")
    )
    if not same:
        raise InputError(
            "task: got other rows when the data were read again, expected the same ones; look for a task or file that "
            "draws its rows at random, since the curvature of a moving loss means nothing"
        )
    first, second = (validation_nll(model, None, rows.table, rows.numbers) for _ in range(2))
    if first != second:
        raise InputError(
            f"model.base: got a loss of {first[0]!r}, then {second[0]!r} on the same rows, expected the same to the "
            "bit; look for dropout or noise that the model keeps when it is evaluated"
        )


def _label(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else layer_of(names[0])
