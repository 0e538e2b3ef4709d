"""Which probes a study may believe: those whose ranking agrees with the full trials', as measured on itself. Pure.

Candidates with a probe and a full trial are ranked by both, within their choice. Where the rank correlation of all
pairs is below the least that is asked for, with an error of 5 %, that share's probes are used no more. Nor are any
where the machine loses all of them.
"""

import math
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from welltuned.search._options import Field, Floats, Seen

LEAST = 0.8  # rank correlation with full trials that a share must have
LEAST_PAIRS = 6  # of which a correlation is taken; assumed
LEAST_LOST = 3  # probes without a result, and none with one, after which none is asked for; assumed
SIGMAS = 1.645  # one-sided error of 5 %


def dropped(found: Sequence[Field], known: Sequence[Seen]) -> tuple[float, ...]:
    """Return the shares whose probes rank otherwise than full trials do; all, where no probe ever came back."""
    shares = sorted({option.share for field in found for option in field.options} - {1.0})
    probes = [one for one in known if found[one.field].options[one.option].share < 1]
    if len(probes) >= LEAST_LOST and all(one.nll is None and not one.high for one in probes):
        return tuple(shares)
    return tuple(share for share in shares if _disagrees(_pairs(found, known, share)))


def _pairs(found: Sequence[Field], known: Sequence[Seen], share: float) -> list[Floats]:
    """Return [pairs, 2] mean losses of each choice: of the probe and of the full trial; infinite where one diverged."""
    losses: defaultdict[tuple[int, int, float], list[float]] = defaultdict(list)
    for one in known:
        option = found[one.field].options[one.option]
        if one.high or one.nll is not None:
            losses[one.field, option.candidate, option.share].append(math.inf if one.nll is None else one.nll)
    means = {key: math.fsum(values) / len(values) for key, values in losses.items()}
    pairs: list[Floats] = []
    for place in range(len(found)):
        mine = [
            (value, means[field, candidate, 1.0])
            for (field, candidate, part), value in means.items()
            if field == place and part == share and (field, candidate, 1.0) in means
        ]
        pairs.append(np.array(mine).reshape(len(mine), 2))
    return pairs


def _disagrees(pairs: Sequence[Floats]) -> bool:
    ranks = np.concatenate([_ranks(group) for group in pairs if len(group) > 1] or [np.zeros((0, 2))])
    if len(ranks) < LEAST_PAIRS or not ranks.std(axis=0).all():
        return False
    correlation = float((ranks[:, 0] * ranks[:, 1]).mean() / (ranks[:, 0].std() * ranks[:, 1].std()))  # means are 0
    error = math.sqrt(1.06 / (len(ranks) - 3))  # of its Fisher transform, Fieller, Hartley and Pearson 1957
    return math.tanh(math.atanh(max(-0.999, min(0.999, correlation))) + SIGMAS * error) < LEAST


def _ranks(losses: Floats) -> Floats:
    """Return ranks between -1/2 and 1/2 of each column, ties at their mean."""
    below = (losses[:, None, :] > losses).sum(1) + 0.5 * (losses[:, None, :] == losses).sum(1)
    return below / len(losses) - 0.5
