"""Random search: candidates drawn evenly, without replacement, until the budget is spent (Bergstra and Bengio 2012).

The order is one random permutation of each choice's candidates, so a larger budget goes on where a smaller one ended.
"""

from collections.abc import Sequence

from welltuned import rng
from welltuned.records import Proposal, Result, Trial
from welltuned.search import _final, _space
from welltuned.search._search import Plan, Search


def propose(plan: Plan, results: Sequence[Result]) -> Proposal:
    """Want every choice's draws, then the reruns of each one's best, then their grading; then nothing."""
    done = _final.by_trial(results)
    found = _space.choices(plan)
    if wanted := _final.missing([trial for choice in found for trial in drawn(plan, choice)], done):
        return Proposal(wanted, (), False)
    bests = [(best.config, choice.num_confirm) for choice in found if (best := _final.best(choice, done))]
    return _final.finish(plan, done, bests)


def drawn(plan: Plan, choice: _space.Choice) -> list[Trial]:
    """Return the trials of the candidates that the budget pays for, in the order of the draw."""
    order: list[int] = (
        rng.stream(plan.seed, "search", "uniform", choice.name).permutation(len(choice.candidates)).tolist()
    )
    return _space.affordable(choice, [choice.candidates[place] for place in order], plan.budget)


SEARCH = Search(
    summary="candidates drawn evenly at random until the budget is spent; each method's best is rerun and graded",
    propose=propose,
)
