"""ASHA: successive halving that never waits for a rung to fill (Li et al. 2020, arXiv 1810.05934, algorithm 2).

Whenever a trial may be asked for, a candidate climbs that is in the best third of all who were trained at its rung,
from the highest rung on which there is one; where there is none, a new candidate starts at the lowest. `[search] width`
trials are asked for at once. The price of one full trial is kept back until there is one. What is left in the end buys
back stopped candidates while one of them may have been the best (`_false_kills.py`)."""

import math
from collections.abc import Iterator, Sequence

from welltuned.records import Proposal, Result, Trial
from welltuned.search import _false_kills, _final, _rungs, _space
from welltuned.search._search import Plan, Search
from welltuned.search.uniform import shuffled


def propose(plan: Plan, results: Sequence[Result]) -> Proposal:
    """Want who climbs and who starts, then the reruns of each choice's best, then their grading; then nothing."""
    return _final.conduct(plan, results, rounds)


def rounds(plan: Plan, choice: _space.Choice, done: _final.Done) -> Iterator[Sequence[Trial]]:
    """Yield round after round of climbs and starts, then the candidates that are bought back."""
    left = (math.inf if plan.budget is None else plan.budget) + _space.ROUNDING
    ladder = _rungs.ladder(choice)
    waiting = shuffled(plan, choice, "asha")
    full = max(map(choice.full_cost, waiting))
    reached: dict[_space.Candidate, int] = {}
    while True:
        before, batch = dict(reached), list[Trial]()
        while len(batch) < plan.width and (step := _next(ladder, waiting, before, reached, done)):
            candidate, rung = step
            kept = 0.0 if ladder.top in (rung, *reached.values()) else full
            if ladder.cost(candidate, rung) > left - kept:
                break
            left -= ladder.cost(candidate, rung)
            if candidate not in reached:
                waiting.remove(candidate)
            reached[candidate] = rung
            batch += ladder.trials(candidate, rung)
        if not batch:
            break
        yield list(dict.fromkeys(batch))
    if ladder.top not in reached.values():
        last = _last(ladder, waiting, reached, done)
        yield last.trials
        left -= choice.full_cost(last)
        reached[last] = ladder.top
    yield from _false_kills.revived(ladder, reached, left, plan.width, done)


def _next(
    ladder: _rungs.Ladder,
    waiting: Sequence[_space.Candidate],
    before: dict[_space.Candidate, int],
    reached: dict[_space.Candidate, int],
    done: _final.Done,
) -> tuple[_space.Candidate, int] | None:
    """Return who is trained next at which rung: who may climb as of the last round, else who starts; None: nobody."""
    for rung in range(ladder.top - 1, -1, -1):
        trained = [one for one, place in before.items() if place >= rung]
        for one in _rungs.best(ladder, trained, rung, done, at_least=0):
            if reached[one] == rung:
                return one, rung + 1
    return (waiting[0], 0) if waiting else None


def _last(
    ladder: _rungs.Ladder,
    waiting: Sequence[_space.Candidate],
    reached: dict[_space.Candidate, int],
    done: _final.Done,
) -> _space.Candidate:
    """Return who gets the one full trial where nobody climbed so far: the best of the highest rung."""
    if not reached:
        return waiting[0]
    highest = max(reached.values())
    return _rungs.best(ladder, [one for one, rung in reached.items() if rung == highest], highest, done)[0]


SEARCH = Search(
    summary="halving that never waits: who is in the best third of his rung climbs, else a new candidate starts",
    propose=propose,
)
