"""Repeats grouped into configurations, and each method's headline: the configuration that a reader is shown.

A configuration is everything but the seed. Its mean is over runs, each mean of several seeds weighing as many; diverged
runs are in it. Its spread is that of its single runs, or the one that the table states.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from welltuned.audit.records import Entry, Problem, Side


@dataclass(frozen=True)
class Configuration:
    """One configuration's runs in one number; `sd` is that of a single run, None where it cannot be told."""

    method: str
    problem: Problem
    learning_rate: float | None
    batch_size: int | None
    rank: int | None
    settings: tuple[tuple[str, str], ...]
    mean: float
    sd: float | None
    num_seeds: int  # runs in the mean, those of the means that the table states included
    num_items: int | None  # None: not stated, or not the same for all
    num_diverged: int
    shares_seed: bool  # its repeats carry one and the same seed
    entries: tuple[Entry, ...]

    @property
    def key(self) -> tuple[object, ...]:
        """Return what identifies it."""
        return self.entries[0].key


def group(side: Side) -> tuple[Configuration, ...]:
    """Group the entries of a side into configurations, in the order of their first appearance."""
    members: defaultdict[tuple[object, ...], list[Entry]] = defaultdict(list)
    for entry in side.entries:
        members[entry.key].append(entry)
    return tuple(_configuration(entries) for entries in members.values())


def best(configurations: Sequence[Configuration], side: Side) -> Configuration:
    """Return the configuration with the best mean; of equals the one with the lowest learning rate."""
    sign = -1.0 if side.higher_is_better else 1.0
    return min(configurations, key=lambda one: (sign * one.mean, one.learning_rate or 0.0))


def of(configurations: Sequence[Configuration], method: str, problem: Problem) -> tuple[Configuration, ...]:
    """Return a method's configurations on a problem."""
    return tuple(one for one in configurations if one.method == method and one.problem == problem)


def _configuration(entries: Sequence[Entry]) -> Configuration:
    runs = [entry.run for entry in entries]
    first = runs[0]
    num_seeds = sum(run.num_seeds for run in runs)
    items = {run.num_items for run in runs}
    seeds = {run.seed for run in runs}
    return Configuration(
        method=first.method,
        problem=first.problem,
        learning_rate=first.learning_rate,
        batch_size=first.batch_size,
        rank=first.rank,
        settings=entries[0].settings,
        mean=math.fsum(run.value * run.num_seeds for run in runs) / num_seeds,
        sd=_sd(entries),
        num_seeds=num_seeds,
        num_items=items.pop() if len(items) == 1 else None,
        num_diverged=sum(run.diverged for run in runs),
        shares_seed=len(runs) > 1 and len(seeds) == 1 and None not in seeds,
        entries=tuple(entries),
    )


def _sd(entries: Sequence[Entry]) -> float | None:
    """Return the standard deviation over single runs, or the one stated for the only row."""
    runs = [entry.run for entry in entries]
    if len(runs) == 1:
        return runs[0].sd
    if any(run.num_seeds > 1 for run in runs):
        return None  # means of several rows: their spread is not that of a run
    mean = math.fsum(run.value for run in runs) / len(runs)
    return math.sqrt(math.fsum((run.value - mean) ** 2 for run in runs) / (len(runs) - 1))
