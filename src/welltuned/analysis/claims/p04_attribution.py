"""P4: is it the learning rate or the batch size? Shares of the variance, raw and once the learning rate is tuned."""

import itertools
import math

import numpy as np

from welltuned.analysis.attribution import Shares, redrawn_raw, redrawn_tuned
from welltuned.analysis.claims._claim import Answer, Claim, judge, lacks, simultaneous, smallest
from welltuned.analysis.claims._compare import generator, when_tuned
from welltuned.analysis.estimate import Estimate, percentile
from welltuned.analysis.runs import Table


def _rate_first(table: Table) -> Answer:
    """min(share of LR - share of B, share of B - share of method), the smallest over problems."""
    found = redrawn_raw(table, generator("P4a"))
    return _judged(found, ("learning_rate", "batch_size", "method"), "share of the variance of all runs")


def _batch_before_method(table: Table) -> Answer:
    found = redrawn_tuned(table, generator("P4b"))
    return _judged(found, ("batch_size", "method"), "share of the variance of tuned values")


def _judged(found: tuple[Shares, ...], order: tuple[str, ...], unit: str) -> Answer:
    usable = [one for one in found if all((name,) in one.values for name in order)]
    if not usable:
        return lacks(f"a problem in which {', '.join(name.replace('_', ' ') for name in order)} all vary")
    family: list[Estimate] = []
    for one in usable:
        steps = list(itertools.pairwise(order))
        value = min(one.values[(first,)] - one.values[(second,)] for first, second in steps)
        if one.draws is None:
            family.append(Estimate(value, None, None, "no configuration was run under two seeds"))
            continue
        draws = [one.draws[(first,)] - one.draws[(second,)] for first, second in steps]
        least = np.min(draws, axis=0)
        family.append(percentile(value, least, "parametric bootstrap over seeds", simultaneous(len(usable))))
    shown = "; ".join(
        ", ".join(f"{name.replace('_', ' ')} {one.values[(name,)]:.1%}" for name in order)
        + ("" if one.balanced else " (unbalanced)")
        for one in usable
    )
    return judge(smallest(family), unit, low=math.ulp(0.0), detail=f"{shown}; shares depend on the ranges tried")


CLAIMS = (
    Claim(
        id="P4a",
        statement="Of the variance over all configurations, learning rate has more than batch size, and that more than"
        " method.",
        source='"Learning Rate Matters" (2026); against it Lee & Lee 2026',
        needs="two learning rates, batch sizes and methods in one problem, two seeds of some configuration",
        estimator="min(eta^2 of rate - of batch, of batch - of method), type II sums of squares",
        threshold="above 0",
        evaluate=_rate_first,
    ),
    Claim(
        id="P4b",
        statement="Once the learning rate is tuned, batch size has more of the variance than method.",
        source="Lee & Lee 2026",
        needs="two batch sizes and methods in one problem, two seeds",
        estimator="eta^2 of batch - eta^2 of method over tuned values",
        threshold="above 0",
        evaluate=when_tuned(_batch_before_method),
    ),
)
