"""P12: the optimal learning rate rises as the square root of the batch size, and beyond a peak it falls."""

import math
from dataclasses import replace

import numpy as np

from welltuned.analysis.claims._claim import Answer, Claim, Verdict, judge, lacks, largest, simultaneous
from welltuned.analysis.claims._compare import generator, setting
from welltuned.analysis.claims._rates import judge_slope, rate_draws
from welltuned.analysis.estimate import Estimate, percentile
from welltuned.analysis.rate_scaling import rising, series
from welltuned.analysis.runs import Table

SIGN_LIKE, SGD = ("adam", "adamw", "sign_sgd"), ("sgd",)
TOLERANCE = 0.15  # part of claim P12
BEYOND = 4.0  # batch sizes past the peak; part of claim P12
FALL = 0.5  # log2 of sqrt(2); part of claim P12


def _of_optimizer(table: Table, optimizers: tuple[str, ...]) -> Table:
    return table.only([run for run in table.runs if (setting(run, "optimizer") or "").lower() in optimizers])


def _rise(table: Table, optimizers: tuple[str, ...], centre: float) -> Answer:
    kept = _of_optimizer(table, optimizers)
    if not kept.runs:
        return lacks(f"runs whose optimizer is said to be {' or '.join(optimizers)}")
    members = rising(series(kept, "batch_size"))
    answer = judge_slope(members, "batch_size", centre - TOLERANCE, centre + TOLERANCE)
    if answer.verdict is Verdict.CONTRADICTED and answer.number is not None and answer.number.value < centre:
        return replace(answer, detail=f"{answer.detail}; a rise that has ended without a peak would look the same")
    return answer


def _falls(table: Table) -> Answer:
    """Compare eta* at its peak with the smallest batch size at least 4 times larger: the largest fall over series."""
    kept = _of_optimizer(table, SIGN_LIKE)
    if not kept.runs:
        return lacks(f"runs whose optimizer is said to be {' or '.join(SIGN_LIKE)}")
    draws = rate_draws(kept, generator("P12c"))
    pairs = []
    for member in series(kept, "batch_size"):
        if len(member.points) < 2:
            continue
        peak = max(member.points, key=lambda point: point.learning_rate)
        after = [point for point in member.points if point.x >= BEYOND * peak.x]
        pairs += [(peak.place, after[0].place)] if after else []
    if not pairs:
        return lacks("an enclosed optimum at 4 times the batch size of the largest optimal rate")
    family: list[Estimate] = []
    for peak, after in pairs:
        (top, ours), (low, theirs) = draws[peak], draws[after]
        value = (top - low) / math.log(2)
        if ours is None or theirs is None:
            family.append(Estimate(value, None, None, "no interval: no configuration was run under two seeds"))
        else:
            twins = np.asarray(ours - theirs) / math.log(2)
            family.append(percentile(value, twins, "parametric bootstrap over seeds", simultaneous(len(pairs))))
    return judge(largest(family), "halvings of eta*", low=FALL, detail=f"{len(pairs)} series reach beyond their peak")


CLAIMS = (
    Claim(
        id="P12a",
        statement="With Adam the optimal learning rate rises as the square root of the batch size.",
        source="the square-root rule; against it the linear rule",
        needs="setting optimizer; enclosed optima at two batch sizes of the rising part",
        estimator="common slope of ln eta* on ln B where it rises: to a quarter of an interior peak",
        threshold="0.5 +- 0.15",
        evaluate=lambda table: _rise(table, SIGN_LIKE, 0.5),
    ),
    Claim(
        id="P12b",
        statement="With SGD the optimal learning rate rises in proportion to the batch size.",
        source="McCandlish et al. 2018",
        needs="setting optimizer = sgd; enclosed optima at two batch sizes",
        estimator="as P12a",
        threshold="1 +- 0.15",
        evaluate=lambda table: _rise(table, SGD, 1.0),
    ),
    Claim(
        id="P12c",
        statement="Past a peak the optimal learning rate of Adam falls with batch size.",
        source="Lee & Lee 2026; Li et al. 2024 (surge)",
        needs="setting optimizer; enclosed optima at the peak and at 4 times its batch size, two seeds",
        estimator="log2 of eta* at the peak over eta* at 4 times its batch size, the largest over series",
        threshold="at least 0.5 (a factor of sqrt 2)",
        evaluate=_falls,
    ),
)
