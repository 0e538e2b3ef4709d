"""How likely is it that a candidate stopped at a rung would have beaten the best, and what is done about it. Pure.

From one rung to the next all losses move, by about the same: what they move by beyond the mean is noise of the ranking,
and those who climbed show how large it is. With m_j and n_j the mean and the number of the moves from rung j to j + 1,
and s^2 their pooled variance of nu degrees of freedom, a candidate stopped at rung k of K with loss l is predicted

    l + sum m_j  with variance  s^2 (K - k + sum 1 / n_j),  j = k .. K - 1,

and beats the best full trial with the chance that Student's t gives (nu degrees of freedom). The chances of one rung
fall with the loss, so nobody is called more promising than who was better at the same rung. Their sum bounds the rate
of false kills, the chance that any stopped one would have won (Boole). Who climbed was lucky in part, so the others'
losses would fall by more than theirs did: tests/test_halving.py simulates how the bound holds."""

import itertools
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from welltuned.records import Result, Status, Trial
from welltuned.search import _final, _space
from welltuned.search._rungs import Ladder

ACCEPTED = 0.05  # bound on the chance of a false kill at which no more is spent; assumed
FEWEST_DEGREES = 3  # of freedom, below which the noise counts as unknown; assumed

Climb = tuple[float, ...]  # a candidate's losses, rung by rung


@dataclass(frozen=True)
class Moves:
    """What losses move by from each rung to the next."""

    means: tuple[float | None, ...]
    counts: tuple[int, ...]
    variance: float
    degrees: int


def moves(climbs: Sequence[Climb], top: int) -> Moves | None:
    """Return the moves of those who climbed; None where there are too few to tell their noise."""
    found = [[climb[rung + 1] - climb[rung] for climb in climbs if len(climb) > rung + 1] for rung in range(top)]
    degrees = sum(max(0, len(steps) - 1) for steps in found)
    if degrees < FEWEST_DEGREES:
        return None
    means = tuple(statistics.fmean(steps) if steps else None for steps in found)
    squares = sum(statistics.variance(steps) * (len(steps) - 1) for steps in found if len(steps) > 1)
    return Moves(means, tuple(map(len, found)), squares / degrees, degrees)


def chance(climb: Climb, best: float, seen: Moves) -> float:
    """Return the chance that a candidate with these losses would have ended below `best`."""
    from scipy.special import stdtr  # pyright: ignore[reportMissingTypeStubs]  # Student's t; slow to import

    rung, top = len(climb) - 1, len(seen.means)
    means = [mean for mean in seen.means[rung:] if mean is not None]
    if len(means) < top - rung:
        return 1.0  # nobody went that way: nothing speaks against it
    variance = seen.variance * (top - rung + sum(1 / count for count in seen.counts[rung:]))
    gap = best - climb[-1] - math.fsum(means)
    if not variance:
        return float(gap > 0)
    return float(stdtr(seen.degrees, gap / math.sqrt(variance)))  # pyright: ignore[reportUnknownArgumentType]


def revived(
    ladder: Ladder, reached: Mapping[_space.Candidate, int], left: float, width: int, done: _final.Done
) -> Iterator[Sequence[Trial]]:
    """Yield full trials of stopped candidates, likeliest first, until the bound is accepted or nothing is left."""
    climbs = {one: climb for one, rung in reached.items() if (climb := _climb(ladder, one, rung, done))}
    stopped = {one for one in climbs if reached[one] < ladder.top}
    seen = moves(list(climbs.values()), ladder.top)
    while stopped:
        ended = [loss for one in reached if (loss := _final.mean_score(one, done)) is not None]
        told = {one: chance(climbs[one], min(ended), seen) if ended and seen else 1.0 for one in stopped}
        if sum(told.values()) <= ACCEPTED:
            return
        order = sorted(stopped, key=lambda one: (-told[one], -len(climbs[one]), climbs[one][-1], one.config.id()))
        costs = itertools.accumulate(ladder.cost(one, ladder.top) for one in order)
        batch = [one for one, cost in zip(order, costs, strict=True) if cost <= left]
        batch = batch[: max(1, width // len(order[0].trials))]
        if not batch:
            return
        yield [trial for one in batch for trial in one.trials]
        left -= sum(ladder.cost(one, ladder.top) for one in batch)
        stopped.difference_update(batch)


def _climb(ladder: Ladder, candidate: _space.Candidate, rung: int, done: _final.Done) -> Climb:
    """Return a candidate's losses up to a rung; none at all where it diverged, or the machine lost it."""
    losses: list[float] = []
    for place in range(rung + 1):
        found = [done.get(_final.key_of(trial)) for trial in ladder.trials(candidate, place)]
        if not all(_is_finished(result) for result in found):
            return ()
        losses.append(statistics.fmean(result.validation_nll for result in found if result and result.validation_nll))
    return tuple(losses)


def _is_finished(result: Result | None) -> bool:
    return result is not None and result.status is Status.FINISHED
