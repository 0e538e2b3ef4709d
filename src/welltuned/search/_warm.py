"""Where a search may begin: the candidate that the learning-rate rules expect to be best. Pure.

`[search] warm_start = true` puts it first for every search that has no expectation of its own, so that a comparison of
searches is not one of who knows the rules (`transfer/`). The rules say nothing of the batch size: the usual one is
taken, or the nearest that is offered, and the middle one of the ranks.
"""

import math
from collections.abc import Sequence

from welltuned.search import _prior
from welltuned.search._search import Plan
from welltuned.search._space import Candidate, Choice

USUAL_BATCH = 16  # the default of [train] batch_size


def ordered(plan: Plan, choice: Choice, order: Sequence[Candidate]) -> list[Candidate]:
    """Return the candidates in this order, behind the expected one where the plan asks for a warm start."""
    if not plan.warm_start:
        return list(order)
    first = expected(plan, choice)
    return [first, *(candidate for candidate in order if candidate != first)]


def expected(plan: Plan, choice: Choice) -> Candidate:
    """Return the candidate whose learning rate is nearest to where the rules expect the best, on a tie the lower."""
    configs = [candidate.config for candidate in choice.candidates]
    batch = min({config.batch_size for config in configs}, key=lambda size: (abs(math.log(size / USUAL_BATCH)), size))
    ranks = sorted({config.rank for config in configs})
    rank = ranks[(len(ranks) - 1) // 2]
    known = [one for one in choice.candidates if (one.config.batch_size, one.config.rank) == (batch, rank)]
    near = known or list(choice.candidates)  # axes are a product, so there is one
    centres = _prior.rule(configs, plan.width_of, plan.sharpness_of).expected([one.config for one in near])
    misses = [abs(math.log2(one.config.learning_rate) - centre) for one, centre in zip(near, centres, strict=True)]
    return min(zip(misses, near, strict=True), key=lambda pair: (pair[0], pair[1].config.learning_rate))[1]
