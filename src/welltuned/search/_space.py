"""What a search with a budget chooses from, and what that has cost so far. Pure.

A choice is one method within one problem: its candidates are the combinations of the study's axes, each on every
selection seed. Costs are in run-equivalents: the rows that a trial reads for training and validation, over those of the
longest full trial of its choice, so that methods with equal budgets read equally much. They are planned costs: a trial
that diverges counts in full, as in `costs/budget.py`; one that was stopped counts for what it trained.
"""

import functools
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from welltuned.costs import flops
from welltuned.costs.budget import Key, key
from welltuned.records import Arm, Config, Result, Role, Status, Trial
from welltuned.search._search import Plan

ROUNDING = 1e-9  # run-equivalents: sums of shares
SEEDS = ("init_seed", "order_seed", "subset_seed")


@dataclass(frozen=True)
class Candidate:
    """One setting of the axes, with its configuration on each selection seed."""

    configs: tuple[Config, ...]

    @property
    def config(self) -> Config:
        """Return the configuration on the first selection seed."""
        return self.configs[0]

    @property
    def trials(self) -> tuple[Trial, ...]:
        """Return its full selection trials."""
        return tuple(Trial(config, Role.SELECT) for config in self.configs)


@dataclass(frozen=True)
class Choice:
    """One method within one problem: what it may be, and how many fresh seeds confirm what was chosen."""

    method: str
    fields: tuple[str, ...]  # that pose the problem
    problem: Key  # their values
    candidates: tuple[Candidate, ...]
    num_confirm: int

    @property
    def name(self) -> str:
        """Return a name for its random streams."""
        return " ".join((self.method, *map(str, self.problem)))

    def cost(self, trial: Trial | Config) -> float:
        """Return the planned cost of a trial in run-equivalents."""
        return rows_read(trial.config if isinstance(trial, Trial) else trial) / self._full_rows

    def full_cost(self, candidate: Candidate) -> float:
        """Return the planned cost of a candidate's full trials, on all selection seeds, in run-equivalents."""
        return sum(self.cost(config) for config in candidate.configs)

    @functools.cached_property
    def _full_rows(self) -> int:
        return max(rows_read(candidate.config) for candidate in self.candidates)

    def results(self, results: Sequence[Result], *roles: Role) -> tuple[Result, ...]:
        """Return those of the results that are of this choice, and of these roles."""
        mine = (result for result in results if result.config.method == self.method and result.role in roles)
        return tuple(result for result in mine if key(result.config, self.fields) == self.problem)

    def spent(self, results: Sequence[Result]) -> float:
        """Return what selection has cost so far, in run-equivalents."""
        return sum(self._paid(result) for result in self.results(results, Role.SELECT, Role.PROBE))

    def _paid(self, result: Result) -> float:
        full = self.cost(result.config)
        if result.status is not Status.STOPPED:
            return full
        return full * min(1.0, result.num_steps / flops.num_steps(result.config))


def rows_read(config: Config) -> int:
    """Return the rows of a trial: those it trains on, repetitions counted, and those of all its validations."""
    return flops.num_samples(config) + config.num_evaluations * config.num_validation


def choices(plan: Plan) -> tuple[Choice, ...]:
    """Return every method within every problem of a plan."""
    return tuple(choice for arm in plan.arms for choice in _of_arm(arm, plan.problem))


def affordable(choice: Choice, candidates: Sequence[Candidate], budget: float | None) -> list[Trial]:
    """Return the full trials of the first of these candidates, as many as the budget pays for on all their seeds."""
    trials: list[Trial] = []
    left = math.inf if budget is None else budget + ROUNDING
    for candidate in candidates:
        left -= choice.full_cost(candidate)
        if left < 0:
            break
        trials += candidate.trials
    return trials


def _of_arm(arm: Arm, fields: tuple[str, ...]) -> Iterable[Choice]:
    problems: defaultdict[Key, defaultdict[Config, list[Config]]] = defaultdict(lambda: defaultdict(list))
    for config in arm.configs:
        problems[key(config, fields)][_without_seeds(config)].append(config)
    for problem, found in problems.items():
        candidates = tuple(Candidate(tuple(configs)) for configs in found.values())
        yield Choice(arm.name, fields, problem, candidates, arm.num_confirm)


@functools.lru_cache(maxsize=1 << 14)  # searches that go through their rounds again ask for the same probes
def shortened(config: Config, share: float) -> Config:
    """Return a probe: the same setting on a course of its own, `share` of the full one's samples, validated at its end.

    Its schedule is annealed within that course, so it is another question than the full trial's first part.
    """
    num_steps = max(1, round(share * flops.num_samples(config) / config.batch_size))
    return config.replace(max_steps=num_steps, num_train_epochs=1, num_evaluations=1)


def _without_seeds(config: Config) -> Config:
    return config.replace(**dict.fromkeys(SEEDS, 0))
