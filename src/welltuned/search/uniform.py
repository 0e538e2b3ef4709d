"""Random search: candidates drawn evenly, without replacement, until the budget is spent (Bergstra and Bengio 2012).

The order is one random permutation of each choice's candidates, so a larger budget goes on where a smaller one ended.
"""

from collections.abc import Iterator, Sequence

from welltuned import rng
from welltuned.records import Proposal, Result, Trial
from welltuned.search import _final, _space, _warm
from welltuned.search._search import Plan, Search


def propose(plan: Plan, results: Sequence[Result]) -> Proposal:
    """Want every choice's draws, then the reruns of each one's best, then their grading; then nothing."""
    return _final.conduct(plan, results, rounds)


def rounds(plan: Plan, choice: _space.Choice, done: _final.Done) -> Iterator[Sequence[Trial]]:
    """Yield the trials that the budget pays for at once, since no draw looks at another's result."""
    del done
    yield _space.affordable(choice, shuffled(plan, choice, "uniform"), plan.budget)


def shuffled(plan: Plan, choice: _space.Choice, search: str) -> list[_space.Candidate]:
    """Return a choice's candidates in the order of the draw, the expected best before them where one begins there."""
    generator = rng.stream(plan.seed, "search", search, choice.name)
    order: list[int] = generator.permutation(len(choice.candidates)).tolist()
    return _warm.ordered(plan, choice, [choice.candidates[place] for place in order])


SEARCH = Search(
    summary="candidates drawn evenly at random until the budget is spent; each method's best is rerun and graded",
    propose=propose,
)
