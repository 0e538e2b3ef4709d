"""What a guided search may train, and what it has seen, as arrays. Pure.

An option is a candidate trained in full, or a probe of it: a course of its own over a share of the full one's samples.
Learning rates, batch sizes, ranks and samples enter as log2, so that differences are octaves.
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from welltuned.costs import flops
from welltuned.records import Config, Result, Role, Status, Trial
from welltuned.search import _prior, _space

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SHARES = (1 / 16, 1 / 4)  # of the full trial's samples, which probes train on; assumed
FEW_STEPS = 8  # a probe of fewer optimizer steps is not run: Adam's first ones are of another kind; assumed
DEAREST = 0.75  # a probe that costs more than this part of its full trial is not run; assumed
WORSE = 1.02  # a loss above so much of the base model's counts as "too high"; assumed
PLACED = ("learning_rate", "batch_size", "rank", "scaling", *_space.SEEDS)  # what has a place of its own in the model


@dataclass(frozen=True)
class Points:
    """Trials as N rows: which choice, method and other settings they have, and where they lie."""

    choice: Ints
    method: Ints
    setting: Ints  # everything that is varied but the learning rate, batch size and rank
    rate: Floats  # log2 of the learning rate
    batch: Floats  # log2 of the batch size, from the middle of those offered
    rank: Floats  # likewise; 0 where the method has none
    samples: Floats  # log2 of the samples trained on, from the most there are in the study
    share: Floats  # log2 of the share of the full trial's samples; 0: full
    expected: Floats  # log2 of the learning rate that the prior expects to be best

    def take(self, rows: Sequence[int] | Ints) -> "Points":
        """Return some of the rows."""
        index = np.asarray(rows, dtype=np.int64)
        return Points(*(getattr(self, field.name)[index] for field in dataclasses.fields(self)))

    @staticmethod
    def join(parts: Sequence["Points"]) -> "Points":
        """Return all rows of all parts."""
        names = [field.name for field in dataclasses.fields(Points)]
        return Points(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    def __len__(self) -> int:
        return len(self.rate)


@dataclass(frozen=True)
class Option:
    """A candidate trained in full (share 1), or a probe of it; `cost` is of one seed, in run-equivalents."""

    candidate: int
    share: float
    cost: float


@dataclass(frozen=True)
class Field:
    """A choice's options: one for each candidate in full, in order, then the probes; and the same as points."""

    choice: _space.Choice
    options: tuple[Option, ...]
    points: Points

    @property
    def num_candidates(self) -> int:
        """Return how many there are; the options before this one are the full ones."""
        return len(self.choice.candidates)

    def trials(self, place: int) -> list[Trial]:
        """Return an option's trials, one for each selection seed."""
        option = self.options[place]
        configs = self.choice.candidates[option.candidate].configs
        role = Role.SELECT if place < self.num_candidates else Role.PROBE
        return [Trial(_config(config, option.share), role) for config in configs]


@dataclass(frozen=True)
class Seen:
    """A result: of which option of which field. Neither `nll` nor `high`: it says nothing (lost, or stopped)."""

    field: int
    option: int
    config: Config
    nll: float | None
    high: bool  # diverged, or worse than the base model: the learning rate was too high
    base_nll: float | None  # of the base model, before the first step


def fields(choices: Sequence[_space.Choice], rule: _prior.Rule) -> tuple[Field, ...]:
    """Return all choices of a study with their options."""
    offered = [candidate.config for choice in choices for candidate in choice.candidates]
    most = math.log2(max(flops.num_samples(config) for config in offered))
    batch, rank = (_middle([_log2(getattr(config, name)) for config in offered]) for name in ("batch_size", "rank"))
    methods = list(dict.fromkeys(choice.method for choice in choices))
    settings: dict[object, int] = {}
    found: list[Field] = []
    for place, choice in enumerate(choices):
        options = _options(choice)
        full = [choice.candidates[option.candidate].config for option in options]
        actual = [_config(config, option.share) for config, option in zip(full, options, strict=True)]
        varied = _varied(choice)
        keys = [tuple((name, getattr(config, name)) for name in varied) for config in full]
        points = Points(
            choice=np.full(len(options), place),
            method=np.full(len(options), methods.index(choice.method)),
            setting=np.array([settings.setdefault(key, len(settings)) for key in keys]),
            rate=np.log2([config.learning_rate for config in full]),
            batch=np.log2([config.batch_size for config in full]) - batch,
            rank=np.array([_log2(config.rank) - rank if config.rank else 0.0 for config in full]),
            samples=np.log2([flops.num_samples(config) for config in actual]) - most,
            share=np.log2([option.share for option in options]),
            expected=rule.expected(actual),
        )
        found.append(Field(choice, options, points))
    return tuple(found)


def seen(found: Sequence[Field], results: Iterable[Result]) -> tuple[Seen, ...]:
    """Return the selection trials and probes among the results."""
    places = {
        (trial.role, _seedless(trial.config)): (place, option)
        for place, field in enumerate(found)
        for option in reversed(range(len(field.options)))  # of options that are one trial, the first
        for trial in field.trials(option)[:1]
    }
    known: list[Seen] = []
    for result in results:
        at = places.get((result.role, _seedless(result.config)))
        if at is not None:
            high = _too_high(result)
            scored = result.status is Status.FINISHED and not high
            known.append(
                Seen(*at, result.config, result.validation_nll if scored else None, high, result.base_validation_nll)
            )
    return tuple(known)


def _too_high(result: Result) -> bool:
    if result.status is not Status.FINISHED:
        return result.status is Status.DIVERGED
    base, nll = result.base_validation_nll, result.validation_nll
    return base is not None and nll is not None and nll > WORSE * base


def _options(choice: _space.Choice) -> tuple[Option, ...]:
    configs = [candidate.config for candidate in choice.candidates]
    full = [Option(place, 1.0, choice.cost(config)) for place, config in enumerate(configs)]
    probes = [
        Option(place, share, choice.cost(short))
        for share in SHARES
        for place, config in enumerate(configs)
        if flops.num_steps(short := _config(config, share)) >= FEW_STEPS
        and choice.cost(short) <= DEAREST * choice.cost(config)
    ]
    return (*full, *probes)


def _config(config: Config, share: float) -> Config:
    return config if share == 1 else _space.shortened(config, share)


def _seedless(config: Config) -> Config:
    return config.replace(**dict.fromkeys(_space.SEEDS, 0))


def _varied(choice: _space.Choice) -> tuple[str, ...]:
    """Return the fields that differ among the candidates and have no place of their own in the model."""
    configs = [candidate.config for candidate in choice.candidates]
    names = (field.name for field in dataclasses.fields(Config) if field.name not in PLACED)
    return tuple(name for name in names if any(getattr(c, name) != getattr(configs[0], name) for c in configs))


def _log2(value: float) -> float:
    return math.log2(value) if value else math.nan


def _middle(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return (min(known) + max(known)) / 2 if known else 0.0
