"""Recorded A/A: LoRA against itself under other seeds, real runs with real answers; part of docs/calibration.md.

`tests/recorded/aa.jsonl.gz` (studies/aa.toml) has 48 graded reruns of one tuned configuration at each of two batch
sizes. Two disjoint groups of s seeds, paired at random, are a comparison of two equal methods. There are more such
comparisons than anybody can count, so `num` are drawn; they share seeds, so what their number alone would give is no
error. That comes from the jackknife over seeds: the rate among comparisons without seed j, for each j
(Efron and Stein, Annals of Statistics 9, 1981, whose estimate of the variance errs upward).

False "equivalent" is read as in simulations: the margin is added to every difference, so that it is the truth.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scripts import simulate

from welltuned.analysis import crossed
from welltuned.analysis.paired import correct_rows
from welltuned.records import Result, Role, Status
from welltuned.rng import stream
from welltuned.store import recorded

STUDY = Path(__file__).parents[1] / "tests" / "recorded" / "aa.jsonl.gz"
SIZES = (3, 5, 10)  # seeds of a group, as in the simulated cells
BLOCK_NUMBERS = 4_000_000


@dataclass(frozen=True)
class Rate:
    """A share of comparisons with its standard error over other seeds."""

    value: float
    error: float


@dataclass(frozen=True)
class Equal:
    """What a verdict says of two equal groups of seeds, over many such groups."""

    batch_size: int
    metric: str  # "accuracy", "loss"
    group: int  # seeds of each side
    num_seeds: int  # recorded
    num: int  # comparisons drawn
    differs: Rate  # false: the 95 % interval does not hold 0
    equivalent: Rate  # false, at a true difference of the margin, the worst of simulate.MARGINS


def cells() -> dict[int, list[Result]]:
    """Return the reruns by batch size."""
    found: dict[int, list[Result]] = {}
    for result in recorded.read(STUDY)[1]:
        if result.role is Role.CONFIRM:
            found.setdefault(result.config.batch_size, []).append(result)
    return dict(sorted(found.items()))


def values(results: Sequence[Result], metric: str) -> NDArray[np.float64]:
    """Return one row a seed: right and wrong answers, or the validation loss as a single column."""
    if metric == "loss":
        return np.array([[result.validation_nll] for result in results], dtype=np.float64)
    rows = [None if result.status is Status.DIVERGED else result.test_correct for result in results]
    return correct_rows(rows, max(len(row) for row in rows if row is not None))


def splits(num_seeds: int, group: int, num: int) -> NDArray[np.int64]:
    """Draw `num` pairs of disjoint groups, as seed indices [num, 2, group]; the order within a group pairs them."""
    generator = stream(0, "recorded equal", num_seeds, group)
    order = generator.permuted(np.tile(np.arange(num_seeds), (num, 1)), axis=1)
    return order[:, : 2 * group].reshape(num, 2, group)


def compared(table: NDArray[np.float64], chosen: NDArray[np.int64]) -> simulate.Draws:
    """Return mean and mean squares of every comparison; the true difference is 0, its error that of the draws."""
    block = max(1, BLOCK_NUMBERS // (chosen.shape[2] * table.shape[1]))
    means, parts = [], []
    for start in range(0, len(chosen), block):
        ours, theirs = chosen[start : start + block, 0], chosen[start : start + block, 1]
        differences = table[ours] - table[theirs]
        means.append(differences.mean((-2, -1)))
        parts.append(crossed.parts_of([differences]))
    joined = [np.concatenate([getattr(part, name) for part in parts]) for name in ("seeds", "items", "residual")]
    mean, first = np.concatenate(means), parts[0]
    items_df = np.full(len(mean), max(table.shape[1] - 1, 1), dtype=np.float64)
    pooled = crossed.Parts(*joined, seeds_df=first.seeds_df, items_df=items_df)
    return simulate.Draws(mean, pooled, 0.0, float(mean.std(ddof=1)))


def kept(draws: simulate.Draws, where: NDArray[np.bool_]) -> simulate.Draws:
    """Return some of the comparisons, with the error of all."""
    parts = draws.parts
    some = crossed.Parts(
        parts.seeds[where], parts.items[where], parts.residual[where], parts.seeds_df, parts.items_df[where]
    )
    return simulate.Draws(draws.means[where], some, draws.truth, draws.standard_error)


def jackknifed(
    rate: Callable[[simulate.Draws], float], draws: simulate.Draws, chosen: NDArray[np.int64], num_seeds: int
) -> Rate:
    """Return a rate with its jackknife error over seeds: sqrt((n - 1) / n sum_j (rate_-j - their mean)^2)."""
    used = np.zeros((len(chosen), num_seeds), dtype=bool)
    np.put_along_axis(used, chosen.reshape(len(chosen), -1), True, axis=1)
    without = np.array([rate(kept(draws, ~used[:, seed])) for seed in range(num_seeds)])
    spread = float(np.square(without - without.mean()).sum())
    return Rate(rate(draws), math.sqrt((num_seeds - 1) / num_seeds * spread))


def judged(results: Sequence[Result], metric: str, group: int, num: int) -> Equal:
    """Return how often two equal groups of seeds are called different, or equivalent where they are not."""
    table = values(results, metric)
    chosen = splits(len(table), group, num)
    draws = compared(table, chosen)
    return Equal(
        batch_size=results[0].config.batch_size,
        metric=metric,
        group=group,
        num_seeds=len(table),
        num=num,
        differs=jackknifed(simulate.found, draws, chosen, len(table)),
        equivalent=jackknifed(lambda some: simulate.record(some).false_equivalent, draws, chosen, len(table)),
    )


def all_judged(num: int) -> list[Equal]:
    """Return every cell, metric and size of group."""
    return [
        judged(results, metric, group, num)
        for results in cells().values()
        for metric in ("accuracy", "loss")
        for group in SIZES
    ]
