"""Searches on recorded results instead of training: what is asked for is looked up, and a fake clock counts.

Full trials are looked up by configuration, so a search may choose what was recorded and nothing else: what was not is
LOST, which counts in no ranking. A probe (`max_steps`) of a course is read from the recorded smaller numbers of
training rows, whose schedules are annealed within them, too: the log loss is linear in the logarithm of the rows
between two of them and, below the smallest, on the line through the smallest two, at most the base's. A probe reads
the first rows of a shuffled course and such a trial the first rows of the data: draws of one distribution.

Each replay sees one recorded seed as its selection seed (the next ones as further seeds) and is judged without it, so
that what a search was lucky with does not count for it.
"""

import dataclasses
import functools
import itertools
import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from welltuned import rng
from welltuned.executors._valley import Valley
from welltuned.records import Config, Proposal, Result, Role, Status, Trial

SEEDS = ("init_seed", "order_seed", "subset_seed")
HALF_WIDTH = 1.9  # trials of a pack at which a token costs twice its least; from packing's gain in docs/performance.md

Propose = Callable[[Sequence[Result]], Proposal]
Cost = Callable[[Config], float]


@dataclass(frozen=True)
class Cell:
    """What is recorded together: a setting with everything but learning rate and seed, at a number of rows."""

    setting: str
    num_train: int
    batch_size: int


class Recorded:
    """Recorded selection trials, by cell."""

    def __init__(self, results: Iterable[Result]) -> None:
        found: defaultdict[Cell, defaultdict[float, dict[int, Result]]] = defaultdict(lambda: defaultdict(dict))
        for result in results:
            scored = result.status in (Status.FINISHED, Status.DIVERGED)
            if result.role is Role.SELECT and scored and result.config.max_steps is None:
                found[cell_of(result.config)][result.config.learning_rate][result.config.init_seed] = result
        self._results = {cell: dict(rates) for cell, rates in found.items()}
        self.valleys = {cell: _valley(rates) for cell, rates in self._results.items()}
        self.sd_log = _pooled_sd(self.valleys.values())

    @property
    def num_seeds(self) -> int:
        """Return how many seeds the best known points have."""
        return max(len(seeds) for rates in self._results.values() for seeds in rates.values())

    def result(self, config: Config, seed: int) -> Result | None:
        """Return a full trial's recorded result, that of the first seed where this one was not recorded."""
        by_seed = self._results.get(cell_of(config), {}).get(config.learning_rate)
        return None if by_seed is None else by_seed.get(seed, by_seed[min(by_seed)])

    def sizes(self, cell: Cell, rate: float) -> list[int]:
        """Return the numbers of rows that were recorded of a cell at a learning rate, ascending."""
        return sorted(
            other.num_train
            for other, rates in self._results.items()
            if (other.setting, other.batch_size) == (cell.setting, cell.batch_size) and rate in rates
        )


@functools.lru_cache(maxsize=1 << 14)
def cell_of(config: Config) -> Cell:
    """Return the cell of a configuration."""
    fixed = dict.fromkeys(SEEDS, 0) | {"learning_rate": 0.0, "num_train": 0, "batch_size": 0, "num_evaluations": 0}
    return Cell(config.replace(**fixed, max_steps=None, num_train_epochs=1).text(), config.num_train, config.batch_size)


@dataclass(frozen=True)
class World:
    """One replay's view of what is recorded: which seed it selects on, and how much noise is on top."""

    recorded: Recorded
    seed: int  # recorded seed that stands for selection seed 0
    noise: float = 1.0  # deviations from the mean over seeds, as multiples of the recorded ones
    replay: int = 0  # names the invented deviations where there is one seed only and `noise` is not 1

    def result(self, trial: Trial) -> Result:
        """Return what training would have come to; LOST, with the reason, where it was not recorded."""
        config = trial.config
        seed = (self.seed + config.init_seed) % self.recorded.num_seeds
        num_rows = min(config.num_train, (config.max_steps or config.num_train) * config.batch_size)
        if config.max_steps is None or num_rows == config.num_train:
            return self._full(trial, seed)
        return self._probe(trial, seed, num_rows)

    def log_loss(self, config: Config) -> float:
        """Return what a configuration is judged by: smoothed, averaged over the other seeds than selection's.

        In the logarithm of nats per token, so a difference is a relative regret.
        """
        valley = self.recorded.valleys[cell_of(config)]
        return valley.smoothed({self.seed})[config.learning_rate]

    def _full(self, trial: Trial, seed: int) -> Result:
        found = self.recorded.result(trial.config, seed)
        if found is None:
            return _lost(trial, "this learning rate, batch size or number of rows was not recorded")
        told = dataclasses.replace(found, trial_id=trial.id, role=trial.role, config=trial.config, adapter=None)
        if self.noise == 1:
            return told
        log_loss = self._log_loss(trial.config, trial.config.num_train, seed)
        return told if log_loss is None else dataclasses.replace(told, validation_nll=math.exp(log_loss))

    def _probe(self, trial: Trial, seed: int, num_rows: int) -> Result:
        config = trial.config
        cell = cell_of(config)
        sizes = self.recorded.sizes(cell, config.learning_rate)
        full = self.recorded.result(config, seed)
        if len(sizes) < 2 or full is None:
            return _lost(trial, "no smaller number of rows was recorded, which a probe would be read from")
        above = next((place for place, size in enumerate(sizes) if size >= num_rows), len(sizes) - 1)
        low, high = sizes[max(0, above - 1)], sizes[max(1, above)]
        ends = self._log_loss(config, low, seed), self._log_loss(config, high, seed)
        part = math.log(num_rows / low) / math.log(high / low)
        told = dataclasses.replace(
            full, trial_id=trial.id, role=trial.role, config=config, adapter=None, curve=(), test_correct=None,
            num_steps=config.max_steps or full.num_steps, num_tokens=round(full.num_tokens * num_rows / sizes[-1]),
            reason=f"read from {low} and {high} rows",
        )  # fmt: skip
        if ends[0] is None or ends[1] is None:
            value = ends[part > 0.5]  # the nearer one
        else:
            value = min(ends[0] + part * (ends[1] - ends[0]), self.recorded.valleys[cell].log_base)
        nll = told.base_validation_nll if value is None else math.exp(value)
        status = Status.DIVERGED if value is None else Status.FINISHED
        return dataclasses.replace(told, status=status, validation_nll=nll)

    def _log_loss(self, config: Config, num_train: int, seed: int) -> float | None:
        """Return a recorded log loss with the noise on top; None: it diverged."""
        cell = dataclasses.replace(cell_of(config), num_train=num_train)
        valley, rate = self.recorded.valleys[cell], config.learning_rate
        value = valley.recorded(rate, seed)
        if value is None or self.noise == 1:
            return value
        deviation = valley.deviation(rate, seed)
        if deviation is None:
            stream = rng.stream(self.replay, "replay", cell.setting, num_train, cell.batch_size, str(rate), seed)
            deviation = self.recorded.sd_log * float(stream.standard_normal())
        return value + (self.noise - 1) * deviation


@dataclass(frozen=True)
class Clock:
    """What a pack takes: `full_seconds` for a full run in a wide pack, and as much again as HALF_WIDTH runs alone."""

    full_seconds: float
    width: int  # trials that train together at the most

    def seconds(self, costs: Sequence[float]) -> float:
        """Return the time of one pack of trials with these costs in run-equivalents."""
        return self.full_seconds * (sum(costs) + HALF_WIDTH * max(costs))


@dataclass(frozen=True)
class Replayed:
    """A search that came to its end: what it chose of each arm and problem, and what that cost."""

    chosen: tuple[Config, ...]
    results: tuple[Result, ...]  # in the order in which they came back
    cost: float  # run-equivalents, over all arms
    seconds: float
    num_rounds: int


def replay(propose: Propose, world: World, cost: Cost, clock: Clock) -> Replayed:
    """Let a search run on what is recorded until it wants its choice confirmed.

    The trials of a proposal train in packs, one after the other; within a pack the shorter ones come back first.
    """
    results: list[Result] = []
    spent = seconds = 0.0
    for num_rounds in itertools.count():
        trials = propose(results).trials
        select = [trial for trial in trials if trial.role is not Role.CONFIRM]
        if not select:
            firsts = (trial.config for trial in trials if trial.config.init_seed == trials[0].config.init_seed)
            return Replayed(tuple(firsts), tuple(results), spent, seconds, num_rounds)
        for start in range(0, len(select), clock.width):
            pack = sorted(select[start : start + clock.width], key=lambda trial: cost(trial.config))
            costs = [cost(trial.config) for trial in pack]
            results += [world.result(trial) for trial in pack]
            spent, seconds = spent + sum(costs), seconds + clock.seconds(costs)
    raise AssertionError("counting ends never")


def _lost(trial: Trial, reason: str) -> Result:
    return Result(
        trial_id=trial.id, role=trial.role, config=trial.config, status=Status.LOST, reason=reason, curve=(),
        num_steps=0, num_tokens=0, seconds=0.0, pack_id="", num_pack=1, clip_fraction=0.0, validation_nll=None,
        base_validation_nll=None, test_correct=None, adapter=None, num_trainable=0,
    )  # fmt: skip


def _valley(rates: dict[float, dict[int, Result]]) -> Valley:
    some = next(result for seeds in rates.values() for result in seeds.values())
    assert some.base_validation_nll is not None, "a recorded trial begins with the base's loss"
    losses = {rate: {seed: _log_nll(result) for seed, result in seeds.items()} for rate, seeds in rates.items()}
    return Valley(losses, math.log(some.base_validation_nll))


def _log_nll(result: Result) -> float | None:
    if result.status is Status.DIVERGED or result.validation_nll is None:
        return None
    return math.log(result.validation_nll)


def _pooled_sd(valleys: Iterable[Valley]) -> float:
    """Return the standard deviation over seeds of the log loss, pooled over all points with several; 0 without any."""
    groups = [
        [value for value in seeds.values() if value is not None]
        for valley in valleys
        for seeds in valley.log_losses.values()
    ]
    groups = [group for group in groups if len(group) > 1]
    freedom = sum(len(group) - 1 for group in groups)
    return (
        math.sqrt(sum(statistics.variance(group) * (len(group) - 1) for group in groups) / freedom) if freedom else 0.0
    )
