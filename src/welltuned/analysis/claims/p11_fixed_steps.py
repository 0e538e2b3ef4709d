"""P11: with the number of steps fixed, a larger batch never hurts, and in the end it no longer helps."""

import itertools
import math

from welltuned.analysis.claims._claim import Answer, Claim, judge, lacks, largest, magnitude, simultaneous
from welltuned.analysis.claims._compare import in_points, judge_family, setting
from welltuned.analysis.estimate import Estimate
from welltuned.analysis.grid import advantage
from welltuned.analysis.optimum_batch import BatchCurve, curves
from welltuned.analysis.runs import Table

MARGIN = 1.0  # points or % of the loss: the protocol's margin


def _curves(table: Table, fewest: int) -> tuple[Table, str, list[BatchCurve]]:
    fixed = [run for run in table.runs if setting(run, "max_steps") not in (None, "None")]
    if not fixed:
        return table, "", []
    scaled, unit = in_points(table.only(fixed))
    return scaled, unit, [curve for curve in curves(scaled) if len(curve.points) >= fewest]


def _rises(table: Table) -> Answer:
    scaled, unit, found = _curves(table, 2)
    if not found:
        return lacks("runs of a fixed number of steps (setting max_steps) at two batch sizes")
    level = simultaneous(sum(math.comb(len(curve.points), 2) for curve in found))
    falls = [
        advantage(small, large, scaled, {}, level)
        for curve in found
        for small, large in itertools.combinations(curve.points, 2)
    ]
    return judge(largest(falls), unit, high=MARGIN)


def _saturates(table: Table) -> Answer:
    scaled, unit, found = _curves(table, 3)
    if not found:
        return lacks("runs of a fixed number of steps (setting max_steps) at three batch sizes")

    def last(level: float) -> Estimate:
        return largest([magnitude(advantage(curve.points[-1], curve.points[-2], scaled, {}, level)) for curve in found])

    return judge_family(last, simultaneous(len(found)), unit, -math.inf, MARGIN)


CLAIMS = (
    Claim(
        id="P11a",
        statement="At a fixed number of steps the tuned value does not fall with batch size.",
        source="Lee & Lee 2026, figure 3",
        needs="setting max_steps, two batch sizes, two seeds",
        estimator="largest fall from a smaller to a larger batch size, simultaneous intervals",
        threshold="at most 1 point, or 1 % of the loss",
        evaluate=_rises,
    ),
    Claim(
        id="P11b",
        statement="At a fixed number of steps the largest batch size is no better than the one before.",
        source="Lee & Lee 2026, figure 3",
        needs="setting max_steps, three batch sizes, two seeds",
        estimator="|last step of the curve over batch size|, the largest over curves",
        threshold="at most 1 point, or 1 % of the loss",
        evaluate=_saturates,
    ),
)
