"""Which trials are compared with which: results grouped into cells, and within a cell by learning rate.

A cell is one setting of all axes but the learning rate and the seeds. A diverged trial scores the base model's step-0
loss and stays in its mean; a lost or stopped one has no score and is counted beside it.
"""

import math
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from welltuned.analysis.wording import Key
from welltuned.records import Config, Result, Role, Status


@dataclass(frozen=True)
class RatePoint:
    """One learning rate of a cell over its selection seeds; `mean_nll` is None where no seed has a score."""

    learning_rate: float
    mean_nll: float | None
    sd_nll: float | None  # over seeds; None under two
    nlls: tuple[float, ...]
    num_diverged: int
    num_unscored: int  # lost or stopped


@dataclass(frozen=True)
class Cell:
    """A cell: its selection trials by learning rate (ascending), and the fresh-seed reruns of its winner."""

    key: Key
    config: Config  # of one of its trials: read only what all of them share
    rates: tuple[RatePoint, ...]
    select: tuple[Result, ...]
    confirm: tuple[Result, ...]
    base_nll: float | None

    @property
    def series(self) -> Key:
        """Return the key without the batch size: what is one line of a figure over batch sizes."""
        return tuple(part for part in self.key if part[0] != "batch_size")

    @property
    def scored(self) -> tuple[RatePoint, ...]:
        """Return the learning rates that have a score."""
        return tuple(rate for rate in self.rates if rate.mean_nll is not None)

    @property
    def selected_rate(self) -> float | None:
        """Return the learning rate of the fresh-seed reruns, else the one with the lowest mean validation NLL."""
        if self.confirm:
            return statistics.mode(result.config.learning_rate for result in self.confirm)
        losses = {rate.learning_rate: rate.mean_nll for rate in self.rates if rate.mean_nll is not None}
        return min(losses, key=lambda rate: losses[rate]) if losses else None

    def rate(self, learning_rate: float | None) -> RatePoint | None:
        """Return the readings at a learning rate, None where it was not tried."""
        return next((rate for rate in self.rates if rate.learning_rate == learning_rate), None)


def key_of(config: Config, fields: Sequence[str]) -> Key:
    """Return the named fields of a configuration with their values."""
    return tuple((name, getattr(config, name)) for name in fields)


def score_nats(result: Result) -> float | None:
    """Return the validation NLL a trial counts with: the base's for a diverged one, None for a lost or stopped one."""
    if result.status is Status.FINISHED:
        return result.validation_nll
    if result.status is Status.DIVERGED:
        return result.base_validation_nll if result.base_validation_nll is not None else result.validation_nll
    return None


def group(results: Sequence[Result], fields: Sequence[str]) -> tuple[Cell, ...]:
    """Group results into cells, in the order of their keys (numbers by size, names by alphabet)."""
    members: defaultdict[Key, list[Result]] = defaultdict(list)
    for result in results:
        if result.role is not Role.PROBE:
            members[key_of(result.config, fields)].append(result)
    return tuple(_cell(key, members[key]) for key in sorted(members, key=order))


def order(key: Key) -> tuple[tuple[int, float, str], ...]:
    """Return what keys are sorted by: numbers by size before names by alphabet."""
    return tuple(_order(value) for _, value in key)


def _order(value: Any) -> tuple[int, float, str]:
    if isinstance(value, int | float):
        return (0, float(value), "")
    return (1, 0.0, str(value))


def _cell(key: Key, results: Sequence[Result]) -> Cell:
    select = tuple(result for result in results if result.role is Role.SELECT)
    confirm = tuple(result for result in results if result.role is Role.CONFIRM)
    by_rate: defaultdict[float, list[Result]] = defaultdict(list)
    for result in select:
        by_rate[result.config.learning_rate].append(result)
    rates = tuple(_rate(rate, by_rate[rate]) for rate in sorted(by_rate))
    bases = [result.base_validation_nll for result in results if result.base_validation_nll is not None]
    return Cell(key, results[0].config, rates, select, confirm, statistics.fmean(bases) if bases else None)


def _rate(learning_rate: float, results: Sequence[Result]) -> RatePoint:
    nlls = tuple(nll for result in results if (nll := score_nats(result)) is not None)
    return RatePoint(
        learning_rate=learning_rate,
        mean_nll=math.fsum(nlls) / len(nlls) if nlls else None,
        sd_nll=statistics.stdev(nlls) if len(nlls) > 1 else None,
        nlls=nlls,
        num_diverged=sum(result.status is Status.DIVERGED for result in results),
        num_unscored=len(results) - len(nlls),
    )
