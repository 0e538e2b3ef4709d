"""How good a method looks after k trials of tuning: the expected best, exactly, from a grid that was run whole.

Estimator: k of the N configurations evaluated are drawn without replacement, and the best on validation is kept. With
the scores ascending, P(the best is among the i lowest) = C(i, k) / C(N, k), which gives the expectation and any
quantile without simulation. Drawing with replacement (Dodge et al. 2019, "Show your work") is biased low for k near N;
without it is Tang et al. 2020 ("Showing your work doesn't always work", eq. 5). The band is over which k are drawn,
not over seeds. The test value is that of the configuration that validation picked.
"""

import itertools
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from welltuned.analysis.grid import Mean, Place, means
from welltuned.analysis.runs import Table

BAND = (0.05, 0.95)  # quantiles over the draws; assumed


@dataclass(frozen=True)
class TuningCurve:
    """One method of one problem; entry k - 1 of each tuple is after k trials."""

    place: Place  # method, problem, training rows and settings
    expected: tuple[float, ...]  # the best value on validation
    low: tuple[float, ...]  # the 5 % and 95 % quantiles of the best value, the worse one first
    high: tuple[float, ...]
    outcome: tuple[float, ...] | None  # expected test value of the one picked; None with `reason`
    reason: str
    num_diverged: int  # configurations with a diverged run


def tuning_curves(table: Table, outcomes: Table | None = None) -> tuple[TuningCurve, ...]:
    """Return the curve of every method over all its learning rates, batch sizes and ranks.

    `outcomes` holds the same configurations in the metric that counts in the end (test accuracy, say); without it the
    table's own reruns on fresh seeds are used, where every configuration has one.
    """
    groups: defaultdict[Place, list[Mean]] = defaultdict(list)
    for member in means(table):
        groups[member.place.without("learning_rate", "batch_size", "rank")].append(member)
    finals = {_key(member): member.value for member in means(outcomes or table, fresh=outcomes is None)}
    if outcomes is None and not any(run.selected for run in table.runs):
        finals = {}
    return tuple(_curve(table.sign, place, group, finals) for place, group in groups.items())


def _key(member: Mean) -> tuple[object, ...]:
    run = member.runs[0]  # all of its settings: those that vary may be others in the table of outcomes
    return (run.problem, run.setting, run.num_train, run.method, run.rank, run.batch_size, run.learning_rate)


def _curve(sign: int, place: Place, group: Sequence[Mean], finals: dict[tuple[object, ...], float]) -> TuningCurve:
    scores = [sign * member.value for member in group]
    picks = [probabilities(scores, k) for k in range(1, len(scores) + 1)]
    found = [finals.get(_key(member)) for member in group]
    known = [value for value in found if value is not None]
    missing = len(found) - len(known)
    quantiles = [[sign * quantile(scores, chance, q) for q in BAND] for chance in picks]
    return TuningCurve(
        place=place,
        expected=tuple(sign * _mean(chance, scores) for chance in picks),
        low=tuple(pair[0] for pair in quantiles),
        high=tuple(pair[1] for pair in quantiles),
        outcome=None if missing else tuple(_mean(chance, known) for chance in picks),
        reason=f"{missing} of {len(found)} configurations have no value that selection never saw" if missing else "",
        num_diverged=sum(member.num_diverged > 0 for member in group),
    )


def _mean(chances: Sequence[float], values: Sequence[float]) -> float:
    return math.fsum(chance * value for chance, value in zip(chances, values, strict=True))


def probabilities(scores: Sequence[float], num_trials: int) -> list[float]:
    """Return the chance of each score to be the best of `num_trials` drawn without replacement; equals share theirs.

    >>> probabilities([0.1, 0.3, 0.2], 2)
    [0.0, 0.6666666666666666, 0.3333333333333333]
    """
    total = len(scores)
    if not 1 <= num_trials <= total:
        raise ValueError(f"num_trials: got {num_trials}, expected 1 to {total}")
    order = sorted(range(total), key=lambda index: scores[index])
    chances = [0.0] * total
    below = 0
    for _, equals in itertools.groupby(order, key=lambda index: scores[index]):
        members = list(equals)
        upto = below + len(members)
        ways = math.comb(upto, num_trials) - math.comb(below, num_trials)
        for index in members:
            chances[index] = ways / (math.comb(total, num_trials) * len(members))
        below = upto
    return chances


def quantile(scores: Sequence[float], chances: Sequence[float], level: float) -> float:
    """Return the smallest score that the best of the trials stays at or below with probability `level`."""
    order = sorted(range(len(scores)), key=lambda index: scores[index])
    reached = itertools.accumulate(chances[index] for index in order)
    for index, chance in zip(order, reached, strict=True):
        if chance >= level - 1e-12:
            return scores[index]
    return scores[order[-1]]
