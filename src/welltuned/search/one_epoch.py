"""Train all briefly, finish the top k: probes of the candidates, then full trials of those that did best in them.

The plain form of "train every configuration for one epoch, and only the best ones to the end" (named so after that
practice), in shares of a course, since a course may be of one epoch. A probe has a short schedule of its own, and the
best learning rate of a short course is higher than that of a long one, so the order of the probes is not that of the
full trials: this search makes no correction for it. Half of the budget is for probes, on the first selection seed; they
are as long as it allows, and where it does not pay for the shortest probe of everybody, random candidates get one.
"""

import itertools
import math
from collections.abc import Iterator, Sequence

from welltuned.records import Proposal, Result, Role, Trial
from welltuned.search import _final, _space
from welltuned.search._search import Plan, Search
from welltuned.search.uniform import shuffled

PROBE_SHARE = 0.5  # of the budget that goes into probes; assumed
UNPROBED = (math.inf, 0.0)  # the loss and the rate that such candidates are sorted by
SHARES = (1 / 4, 1 / 8, 1 / 16, 1 / 32)  # of the full course that a probe may be, the longest first; assumed


def propose(plan: Plan, results: Sequence[Result]) -> Proposal:
    """Want every choice's probes, then full trials of the best, then their reruns and grading; then nothing."""
    return _final.conduct(plan, results, rounds)


def rounds(plan: Plan, choice: _space.Choice, done: _final.Done) -> Iterator[Sequence[Trial]]:
    """Yield the probes, then the full trials that are paid for by what is left."""
    budget = math.inf if plan.budget is None else plan.budget
    candidates = shuffled(plan, choice, "one_epoch")
    probe_of = probes(choice, candidates, budget)
    yield list(dict.fromkeys(probe_of.values()))
    spent = sum(choice.cost(trial) for trial in set(probe_of.values()))
    # Who was not probed, because the budget did not pay for it, comes last, in the order of the draw.
    ranked = sorted(candidates, key=lambda one: _final.rank(one, probe_of[one], done) if one in probe_of else UNPROBED)
    yield _space.affordable(choice, ranked, budget - spent)


def probes(
    choice: _space.Choice, candidates: Sequence[_space.Candidate], budget: float
) -> dict[_space.Candidate, Trial]:
    """Return each candidate's probe, the longest that leaves half of the budget and at least one full trial."""
    full = max(choice.full_cost(candidate) for candidate in candidates)
    most = min(PROBE_SHARE * budget, budget - full) + _space.ROUNDING
    found: dict[_space.Candidate, Trial] = {}
    for share in SHARES:
        found = {one: Trial(_space.shortened(one.config, share), Role.PROBE) for one in candidates}
        if sum(choice.cost(trial) for trial in set(found.values())) <= most:
            return found
    spent = list(itertools.accumulate(choice.cost(trial) for trial in found.values()))
    return {one: trial for (one, trial), so_far in zip(found.items(), spent, strict=True) if so_far <= most}


SEARCH = Search(
    summary="short probes of all candidates for half of the budget, full trials of the best of them for the rest",
    propose=propose,
)
