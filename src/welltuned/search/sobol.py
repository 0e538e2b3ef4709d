"""Quasi-random search: candidates nearest to a scrambled Sobol sequence, until the budget is spent.

Its points leave smaller holes than random draws do (Bergstra and Bengio 2012, section 4.2; the scrambling is a random
linear matrix and a digital shift: scipy.stats.qmc). They lie in the unit cube of the axes, the learning rate, the batch
size and the rank by their logarithm; each goes to the nearest candidate that no earlier point took.
A larger budget goes on where a smaller one ended.
"""

import math
from collections.abc import Iterator, Sequence

from welltuned import rng
from welltuned.records import Proposal, Result, Trial
from welltuned.search import _axes, _final, _space, _warm
from welltuned.search._search import Plan, Search


def propose(plan: Plan, results: Sequence[Result]) -> Proposal:
    """Want every choice's points, then the reruns of each one's best, then their grading; then nothing."""
    return _final.conduct(plan, results, rounds)


def rounds(plan: Plan, choice: _space.Choice, done: _final.Done) -> Iterator[Sequence[Trial]]:
    """Yield the trials that the budget pays for at once, since no point looks at another's result."""
    del done
    cheapest = min(map(choice.full_cost, choice.candidates))
    budget = math.inf if plan.budget is None else plan.budget
    number = min(len(choice.candidates), math.floor(budget / cheapest + _space.ROUNDING))
    yield _space.affordable(choice, _warm.ordered(plan, choice, first(plan, choice, number)), plan.budget)


def first(plan: Plan, choice: _space.Choice, number: int) -> list[_space.Candidate]:
    """Return the candidates of the first points of the sequence."""
    points = _axes.box(choice).points()
    taken: dict[int, None] = {}
    for target in _sequence(plan, choice, number, len(points[0])):
        taken[_axes.nearest(points, target, taken)] = None
    return [choice.candidates[place] for place in taken]


def _sequence(plan: Plan, choice: _space.Choice, number: int, num_axes: int) -> Sequence[Sequence[float]]:
    """Return the first points of the choice's sequence; SciPy wants to draw a power of 2 of them."""
    if not num_axes:
        return [()] * number
    from scipy.stats import qmc  # pyright: ignore[reportMissingTypeStubs]  # slow to import

    sequence = qmc.Sobol(num_axes, scramble=True, rng=rng.stream(plan.seed, "search", "sobol", choice.name))
    drawn: list[list[float]] = sequence.random_base2(math.ceil(math.log2(max(1, number)))).tolist()
    return drawn[:number]


SEARCH = Search(
    summary="candidates along a Sobol sequence until the budget is spent; each method's best is rerun and graded",
    propose=propose,
)
