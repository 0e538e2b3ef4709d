"""Guided search: a model of all methods' valleys says which probe or full trial is worth its cost next.

First every method gets a comb of short probes over the learning rates; then rounds of the trials whose expected gain
per cost is highest; it ends where the budget, the gain, or the doubt about the best candidate does. The best is one
that was trained in full, by the posterior's mean rather than by the lowest loss, which is the luckiest; docs/guided.md.
"""

from collections.abc import Sequence

from welltuned.records import Proposal, Result
from welltuned.search import _final, _guide, _summary
from welltuned.search._beliefs import Belief
from welltuned.search._search import Plan, Search


def propose(plan: Plan, results: Sequence[Result]) -> Proposal:
    """Want the trials that are worth most; then the reruns of each choice's best, then their grading; then nothing."""
    views = _guide.look(plan, results)
    if trials := [trial for view in views for trial in _guide.wanted(plan, view)[0]]:
        return Proposal(tuple(trials), (), False)
    bests = [(view.best, view.field.choice.num_confirm) for view in views if view.best is not None]
    return _final.finish(plan, _final.by_trial(results), bests)


def beliefs(plan: Plan, results: Sequence[Result]) -> tuple[Belief, ...]:
    """Return what the results say of every choice, at any time of a study and for results of any search."""
    return tuple(_summary.belief(view, _guide.wanted(plan, view)[1]) for view in _guide.look(plan, results))


SEARCH = Search(
    summary="probes, then the trials that a model of the valleys expects most of; the best is rerun and graded",
    propose=propose,
)
