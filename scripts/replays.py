"""Searches on recorded surfaces: which ones, with which budgets and how often; the numbers behind docs/tuner.md.

A case is what is tuned: one method's batch size and learning rate, or the methods of a base and rank together, each
with a budget of its own. All contenders of a replay have the same candidates, budget, seeds, packs and warm start, the
candidate that the learning-rate rules expect to be best: they differ in what they do with results. The recorded
learning rates are centred by a probe, so that their middle would give the optimum away: each replay offers OFFERED of
them in a row, drawn anew. What was computed is kept in a cache by the hash of all that decides it.
"""

import contextlib
import dataclasses
import hashlib
import json
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray
from scripts.predictor_race import CURVATURE
from scripts.surface_tables import Surface

from welltuned import plugins, rng, transfer
from welltuned.analysis import curvature
from welltuned.errors import InputError
from welltuned.executors.replay import Clock, Recorded, Replayed, World, cell_of, replay
from welltuned.plan import Plan
from welltuned.records import Arm, Config, Proposal, Result, Survey
from welltuned.search import _prior, _space
from welltuned.search._warm import USUAL_BATCH
from welltuned.spec import Spec
from welltuned.transfer import starts

ROOT = Path(__file__).parents[1]
BUDGETS = (1, 2, 4, 8, 16)  # run-equivalents, for each method
WIDTH = 4  # trials of a method at once
OFFERED = 7  # learning rates of a replay
NUM_REPLAYS = 30
NOTHING_TRAINED = 0  # the budget of a rule alone
RULE = "rule"
HYPERBAND = "scripts.hyperband_tpe:SEARCH"  # a rival that welltuned does not offer
DECIDING = (
    "src/welltuned/search",
    "src/welltuned/transfer",
    "src/welltuned/executors/replay.py",
    "src/welltuned/executors/_valley.py",
    "scripts/replays.py",
    "scripts/hyperband_tpe.py",
)


@dataclass(frozen=True)
class Case:
    """What is tuned: arms whose candidates were recorded, with all of the recorded results."""

    name: str
    split: str
    arms: tuple[Arm, ...]
    results: tuple[Result, ...]
    surveys: Mapping[str, Survey]
    sharpness: Mapping[curvature.Key, float]  # of its methods at the start; {}: not measured

    @property
    def recorded(self) -> Recorded:
        """Return the results as what replays look things up in."""
        return Recorded(self.results)

    @property
    def full_seconds(self) -> float:
        """Return the median time of a full run's share of its pack."""
        ids = {config.replace(init_seed=0).id() for arm in self.arms for config in arm.configs}
        return statistics.median(result.seconds for result in self.results if result.trial_id in ids)


@dataclass(frozen=True)
class Variant:
    """How a case is made harder: `noise` times the seeds' deviations, a prior that is off, a box without the best."""

    name: str
    noise: float = 1.0
    shift_octaves: float = 0.0
    permuted: bool = False
    unpublished: bool = False  # nothing is known of how the methods' rates differ from LoRA's
    offered: int = OFFERED  # learning rates of a replay; under that many, those at an end, and all are judged by


@dataclass(frozen=True)
class Contender:
    """A search with its settings."""

    name: str
    search: str
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)
    budgets: tuple[int, ...] = BUDGETS
    knows_curvature: bool = False


@dataclass(frozen=True)
class Score:
    """One replay of a contender: the regret of each method's choice, as a share of the best loss."""

    budget: float
    replay: int
    regrets: tuple[float, ...]
    cost: float  # run-equivalents for each method, on average
    seconds: float
    num_rounds: int

    @property
    def regret(self) -> float:
        """Return the mean over the methods."""
        return statistics.fmean(self.regrets)


OCTAVES = 0.75 * math.log2(10)
PLAIN = Variant("as recorded")
HARDER = (
    Variant("prior 0.75 decades too high", shift_octaves=OCTAVES),
    Variant("prior 0.75 decades too low", shift_octaves=-OCTAVES),
    Variant("method shifts permuted", permuted=True),
    Variant("5 times the noise", noise=5.0),
)
UNPUBLISHED = Variant("methods of which nothing is published", unpublished=True)
FEW = 4  # of the nine recorded learning rates: the lowest or the highest, so that the middle one is not among them
MISSED = Variant("a box that misses the best", offered=FEW)
WARM: Mapping[str, Any] = {"warm_start": True}  # all rivals begin with what the rules expect, as guided does
TPE = {"sampler": "TPESampler"}
BOX: Mapping[str, Any] = {"reopen": False}  # all rivals choose among what is offered, so guided does
CONTENDERS = (
    Contender("rule alone", RULE, budgets=(NOTHING_TRAINED,)),
    Contender("random", "uniform", WARM),
    Contender("Sobol", "sobol", WARM),
    Contender("one_epoch", "one_epoch", WARM),
    Contender("successive halving", "halving", WARM),
    Contender("ASHA", "asha", WARM),
    Contender("Hyperband with TPE", HYPERBAND, WARM),
    Contender("TPE, one axis at a time", "optuna", {**WARM, **TPE, "sampler_options": {"multivariate": False}}),
    Contender("TPE, multivariate", "optuna", {**WARM, **TPE, "sampler_options": {"multivariate": True}}),
    Contender("Gaussian process", "optuna", {**WARM, "sampler": "GPSampler"}),
    Contender("guided", "guided", BOX),
    Contender("whole grid", "uniform", budgets=(10_000,)),
)
GUIDED = next(one for one in CONTENDERS if one.name == "guided")
REOPENING = Contender("guided, which may go beyond", "guided")
BENT = dataclasses.replace(GUIDED, name="guided, with curvature", knows_curvature=True)


def available() -> tuple[Contender, ...]:
    """Return the contenders whose search is there."""
    known = {RULE, HYPERBAND, *plugins.names("searches")}
    return tuple(one for one in CONTENDERS if one.search in known)


# Cases ---------------------------------------------------------------------------------------------------------------


def single(surface: Surface) -> Case:
    """Return the case of tuning a surface's method alone."""
    configs = tuple(result.config for result in surface.candidates)
    name = f"{surface.recording.surface}, {max(surface.recording.num_train):,} rows"
    surveys = {survey.config_key: survey for survey in surface.declaration.surveys}
    arms = (Arm(surface.recording.method, configs, 1),)
    return Case(name, surface.split, arms, surface.results, surveys, _sharpness(configs))


def _sharpness(configs: Sequence[Config]) -> Mapping[curvature.Key, float]:
    """Return what was measured of the curvature of these configurations' methods; nothing where one is missing."""
    try:
        return curvature.largest(CURVATURE, configs)
    except InputError:
        return {}


def together(surfaces: Sequence[Surface]) -> Case:
    """Return the case of tuning several methods on one base at once."""
    first = surfaces[0].recording
    cases = [single(surface) for surface in surfaces]
    splits = {case.split for case in cases}
    methods = ", ".join(surface.recording.method for surface in surfaces)
    name = f"{first.base}, {max(first.num_train):,} rows: {methods}"
    arms = tuple(arm for case in cases for arm in case.arms)
    results = tuple(result for case in cases for result in case.results)
    surveys = {key: survey for case in cases for key, survey in case.surveys.items()}
    sharpness = {key: value for case in cases for key, value in case.sharpness.items()}
    return Case(name, splits.pop() if len(splits) == 1 else "mixed", arms, results, surveys, sharpness)


def offered(case: Case, number: int, variant: Variant = PLAIN) -> tuple[Arm, ...]:
    """Return a replay's candidates: some neighbouring learning rates of each method, drawn by the replay's number."""
    return tuple(dataclasses.replace(arm, configs=tuple(_window(arm, case, number, variant))) for arm in case.arms)


def _window(arm: Arm, case: Case, number: int, variant: Variant) -> Iterator[Config]:
    rates = sorted({config.learning_rate for config in arm.configs})
    most = max(0, len(rates) - variant.offered)
    if variant.offered < OFFERED:
        first = most * (number % 2)
    else:
        first = int(rng.stream(number, "offered", case.name, arm.name).integers(0, most + 1))
    return (config for config in arm.configs if config.learning_rate in rates[first : first + variant.offered])


def plan_of(case: Case, arms: tuple[Arm, ...], contender: Contender, budget: float, seed: int) -> Plan:
    """Return the plan that a contender sees."""
    search = {"search": contender.search, "budget": budget, "width": WIDTH, "fresh_seeds": 1} | dict(contender.settings)
    tree = {"name": "replay", "seed": seed, "model": {"base": "abacus-small"}, "train": {"learning_rate": 1e-3}}
    spec = Spec.model_validate({**tree, "task": {"task": "abacus", "num_train": 64}, "search": search})
    cell = ("method", "batch_size")
    sharpness = case.sharpness if contender.knows_curvature else {}
    return Plan(spec, case.surveys, arms, cell, frozenset(), (), {}, (), sharpness)


# Replays -------------------------------------------------------------------------------------------------------------


def scores(case: Case, contender: Contender, variant: Variant, num_replays: int, cache: Path) -> list[Score]:
    """Return every replay of a contender on a case, from the cache where it was computed before."""
    file = cached(case, contender, variant, num_replays, cache)
    if file.exists():
        return [Score(**(row | {"regrets": tuple(row["regrets"])})) for row in json.loads(file.read_text())]
    found = list(_computed(case, contender, variant, num_replays))
    cache.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps([dataclasses.asdict(score) for score in found]))
    return found


def cached(case: Case, contender: Contender, variant: Variant, num_replays: int, cache: Path) -> Path:
    """Return where a contender's replays are kept: named by the hash of all that decides them."""
    known = sorted(case.sharpness.items()) if contender.knows_curvature else []
    digest = hashlib.sha256(repr((case.name, contender, variant, num_replays, BUDGETS, WIDTH, known)).encode())
    for result in case.results:
        digest.update(f"{result.trial_id} {result.role} {result.validation_nll}".encode())
    for name in DECIDING:
        path = ROOT / name
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.suffix in (".py", ".toml"):
                digest.update(file.read_bytes())
    return cache / f"{digest.hexdigest()[:24]}.json"


def _computed(case: Case, contender: Contender, variant: Variant, num_replays: int) -> Iterator[Score]:
    recorded = case.recorded
    judged = [_judged(case, World(recorded, seed)) for seed in range(recorded.num_seeds)]
    for budget in contender.budgets:
        for number in range(num_replays):
            seed = number % recorded.num_seeds
            arms = offered(case, number, variant)
            with _moved(variant, arms):
                found = _replayed(case, arms, contender, budget, World(recorded, seed, variant.noise, number))
            judges = case.arms if variant.offered < OFFERED else arms
            regrets = tuple(_regret(arm, found.chosen, judged[seed], recorded) for arm in judges)
            yield Score(budget, number, regrets, found.cost / len(arms), found.seconds, found.num_rounds)


def _replayed(case: Case, arms: tuple[Arm, ...], contender: Contender, budget: float, world: World) -> Replayed:
    if contender.search == RULE:
        return Replayed(tuple(by_rule(arm, case) for arm in arms), (), 0.0, 0.0, 0)
    search = plugins.load("searches", contender.search)
    plan = plan_of(case, arms, contender, budget, world.replay)

    def propose(results: Sequence[Result]) -> Proposal:
        return search.propose(plan, results)

    return replay(propose, world, _space.choices(plan)[0].cost, Clock(case.full_seconds, WIDTH * len(arms)))


def best_inside(case: Case, variant: Variant, num_replays: int) -> float:
    """Return the mean regret of the best candidate among those that a variant's replays offer."""
    recorded = case.recorded
    judged = [_judged(case, World(recorded, seed)) for seed in range(recorded.num_seeds)]
    regrets: list[float] = []
    for number in range(num_replays):
        loss = judged[number % recorded.num_seeds]
        for every, some in zip(case.arms, offered(case, number, variant), strict=True):
            best, inside = (min(loss[_seedless(config)] for config in arm.configs) for arm in (every, some))
            regrets.append(math.expm1(inside - best))
    return statistics.fmean(regrets)


def _judged(case: Case, world: World) -> dict[Config, float]:
    """Return the log loss of every candidate, judged without the seed that is selected on."""
    return {_seedless(config): world.log_loss(config) for arm in case.arms for config in arm.configs}


def _regret(arm: Arm, chosen: Sequence[Config], judged: Mapping[Config, float], recorded: Recorded) -> float:
    """Return how much worse an arm's choice is than the best offered; the base model's where nothing was chosen."""
    best = min(judged[_seedless(config)] for config in arm.configs)
    mine = [judged[_seedless(config)] for config in chosen if config.method == arm.name]
    base = recorded.valleys[cell_of(arm.configs[0])].log_base
    return math.expm1((mine[0] if mine else base) - best)


def _seedless(config: Config) -> Config:
    return config.replace(**dict.fromkeys(_space.SEEDS, 0))


def by_rule(arm: Arm, case: Case) -> Config:
    """Return what the rules of transfer/ choose with nothing trained: their centre at the usual batch size."""
    nearest_batch = min(
        {config.batch_size for config in arm.configs}, key=lambda size: abs(math.log(size / USUAL_BATCH))
    )
    offered = [config for config in arm.configs if config.batch_size == nearest_batch]
    one, survey = offered[0], next(iter(case.surveys.values()))
    known = transfer.prior(survey.hidden_size, one.method, max(1, one.rank), one.alpha, nearest_batch, one.num_train)
    return min(offered, key=lambda config: abs(math.log2(config.learning_rate) - known.centre_log2))


@contextlib.contextmanager
def _moved(variant: Variant, arms: Sequence[Arm]) -> Iterator[None]:
    """Move what the rules expect, for guided and for the others' first trial: by octaves, or to the next method's."""
    methods = [arm.name for arm in arms]
    there = methods[1:] + methods[:1] if variant.permuted else methods
    octaves = {
        method: variant.shift_octaves + starts.shift(other).octaves - starts.shift(method).octaves
        for method, other in zip(methods, there, strict=True)
    }
    true = _prior.Rule.expected

    def expected(rule: _prior.Rule, configs: Sequence[Config]) -> NDArray[np.float64]:
        return true(rule, configs) + np.array([octaves[config.method] for config in configs])

    published = {"lora": starts.SHIFTS["lora"]} if variant.unpublished else dict(starts.SHIFTS)
    with (
        mock.patch.object(_prior.Rule, "expected", expected),
        mock.patch.dict(starts.SHIFTS, published, clear=True),
    ):
        yield


# What they come to ---------------------------------------------------------------------------------------------------


def area(found: Sequence[Score]) -> dict[int, float]:
    """Return each replay's mean regret over log2 of the budget: the area under the curve, over its width."""
    by_replay: dict[int, dict[float, float]] = {}
    for score in found:
        by_replay.setdefault(score.replay, {})[score.budget] = score.regret
    return {number: _mean_height(curve) for number, curve in by_replay.items()}


def _mean_height(curve: Mapping[float, float]) -> float:
    budgets = sorted(curve)
    places, heights = np.log2(budgets), [curve[budget] for budget in budgets]
    return float(np.trapezoid(heights, places) / (places[-1] - places[0]))
