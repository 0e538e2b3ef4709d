"""P33: seeds that also change the data order spread results more than seeds of the initialisation alone."""

import math
from collections import defaultdict
from collections.abc import Iterable

from welltuned.analysis.claims._claim import Answer, Claim, judge, lacks
from welltuned.analysis.estimate import CONFIDENCE, Estimate
from welltuned.analysis.grid import means
from welltuned.analysis.runs import Run, Table

PARTS = 3  # of our own seeds, "init/order/subset"


def _spread(table: Table) -> Answer:
    """Pool variances within configurations: over inits at one data order, and over orders, one run of each."""
    init, order = [0.0, 0], [0.0, 0]
    for member in (*means(table), *means(table, fresh=True)):
        known = [run for run in dict.fromkeys(member.runs) if run.seed is not None and run.seed.count("/") == PARTS - 1]
        by_order: defaultdict[str, list[Run]] = defaultdict(list)
        for run in known:
            by_order[(run.seed or "").split("/", 1)[1]].append(run)
        for runs in by_order.values():
            _add(init, [run.value for run in runs])
        _add(order, [runs[0].value for runs in by_order.values()])
    if not init[1] or not order[1]:
        return lacks("seeds written init/order/subset, some that differ in init only and some in the order too")
    if not init[0] or not order[0]:
        return lacks("runs that differ between seeds")
    return judge(_ratio(order, init), "ratio of standard deviations", low=1.0)


def _add(total: list[float], values: Iterable[float]) -> None:
    """Add the squares and degrees of freedom of one group."""
    known = list(values)
    mean = math.fsum(known) / len(known) if known else 0.0
    total[0] += math.fsum((value - mean) ** 2 for value in known)
    total[1] += max(len(known) - 1, 0)


def _ratio(order: list[float], init: list[float]) -> Estimate:
    """Return sd_order / sd_init with the F interval, which takes the values for normal."""
    from scipy.stats import f

    ratio = (order[0] / order[1]) / (init[0] / init[1])
    low, high = f.ppf([0.5 - CONFIDENCE / 2, 0.5 + CONFIDENCE / 2], order[1], init[1])
    basis = f"F with {order[1]} and {init[1]} degrees of freedom"
    return Estimate(math.sqrt(ratio), math.sqrt(ratio / high), math.sqrt(ratio / low), basis)


CLAIMS = (
    Claim(
        id="P33",
        statement="Seeds that change the data order spread results more than seeds of the initialisation alone.",
        source='the code of "Learning Rate Matters" (2026), whose three seeds share one data order',
        needs="seeds that differ in init only, and seeds that differ in the order too",
        estimator="ratio of the pooled standard deviations within configurations, F interval",
        threshold="above 1",
        evaluate=_spread,
    ),
)
