"""Guided search: a model of all methods' valleys says which probe or full trial is worth its cost next (docs/guided.md).

First every method gets a comb of short probes over the learning rates, biased high; then rounds of the trials whose expected
gain per cost is highest, a few at a time; it ends where the budget, the gain, or the doubt about the best candidate does.
What is best is said of full trials only, by the posterior's mean rather than by the lowest loss seen, which is the luckiest.
"""

from collections.abc import Sequence

from welltuned.records import Proposal, Result
from welltuned.search import _final, _guide
from welltuned.search._beliefs import Belief, BestRate
from welltuned.search._search import Plan, Search

__all__ = ["SEARCH", "Belief", "BestRate", "beliefs", "propose"]


def propose(plan: Plan, results: Sequence[Result]) -> Proposal:
    """Want the trials that are worth most; then the reruns of each choice's best, then their grading; then nothing."""
    views = _guide.look(plan, results)
    if trials := [trial for view in views for trial in _guide.wanted(plan, view)]:
        return Proposal(tuple(trials), (), False)
    bests = [(view.best, view.field.choice.num_confirm) for view in views if view.best is not None]
    return _final.finish(plan, _final.by_trial(results), bests)


def beliefs(plan: Plan, results: Sequence[Result]) -> tuple[Belief, ...]:
    """Return what the results say of every choice, at any time of a study and for results of any search."""
    return tuple(_summary.belief(plan, view) for view in _guide.look(plan, results))


SEARCH = Search(
    summary="probes, then the trials that a model of the valleys expects most of; each method's best is rerun and graded",
    propose=propose,
)
