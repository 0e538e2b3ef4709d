"""Successive halving: many short probes, the best third of them longer ones, and so on to full trials.

Jamieson and Talwalkar 2016 (arXiv 1502.07943), with the reduction by 3 of Hyperband (Li et al. 2018, arXiv 1603.06560).
As many candidates start, in random order, as the budget carries to the top. Ranks are kept: nobody climbs past a better
one of the same rung. What is left of the budget buys back stopped candidates while one of them may have been the best
(`_false_kills.py`).
"""

import math
from collections.abc import Iterator, Sequence

from welltuned.records import Proposal, Result, Trial
from welltuned.search import _false_kills, _final, _rungs, _space
from welltuned.search._search import Plan, Search
from welltuned.search.uniform import shuffled


def propose(plan: Plan, results: Sequence[Result]) -> Proposal:
    """Want rung after rung, then the reruns of each choice's best, then their grading; then nothing."""
    return _final.conduct(plan, results, rounds)


def rounds(plan: Plan, choice: _space.Choice, done: _final.Done) -> Iterator[Sequence[Trial]]:
    """Yield the trials of every rung, then those of the candidates that are bought back."""
    left = (math.inf if plan.budget is None else plan.budget) + _space.ROUNDING
    ladder = _rungs.ladder(choice)
    order = shuffled(plan, choice, "halving")
    members = order[: num_started(ladder, order, left)]
    reached: dict[_space.Candidate, int] = {}
    for rung in range(ladder.top + 1) if len(members) > 1 else [ladder.top]:
        yield list(dict.fromkeys(trial for one in members for trial in ladder.trials(one, rung)))
        left -= sum(ladder.cost(one, rung) for one in members)
        reached |= dict.fromkeys(members, rung)
        members = _rungs.best(ladder, members, rung, done)
    yield from _false_kills.revived(ladder, reached, left, plan.width, done)


def num_started(ladder: _rungs.Ladder, order: Sequence[_space.Candidate], budget: float) -> int:
    """Return the largest number of candidates that the budget carries from the lowest rung to the top, at least one."""
    dearest = [max(ladder.cost(one, rung) for one in order) for rung in range(ladder.top + 1)]
    for number in range(len(order), 1, -1):
        members, cost = number, 0.0
        for rung_cost in dearest:
            cost += members * rung_cost
            members = _rungs.num_kept(members)
        if cost <= budget:
            return number
    return 1


SEARCH = Search(
    summary="short probes, longer ones of the best third, and so on to full trials; the best is rerun and graded",
    propose=propose,
)
