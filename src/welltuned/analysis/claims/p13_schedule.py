"""P13: the schedule matters, the warm-up does not."""

import math
from collections.abc import Callable

from welltuned.analysis.claims._claim import Answer, Claim, judge, lacks, largest, magnitude, simultaneous, smallest
from welltuned.analysis.claims._compare import in_points, judge_family, when_tuned
from welltuned.analysis.estimate import Estimate
from welltuned.analysis.grid import Tuned, advantage, tuned
from welltuned.analysis.runs import Table

GAIN = 2.0  # points; part of claim P13
MARGIN = 1.0  # points; in place of "1 SE", inside which no interval of 95 % can lie
SCHEDULE, WARM_UP = "lr_scheduler_type", "warmup_ratio"


def _pairs(
    table: Table, name: str, one: Callable[[str], bool], other: Callable[[str], bool]
) -> list[tuple[Tuned, Tuned]]:
    """Return tuned cells that differ in one setting only."""
    groups: dict[object, list[Tuned]] = {}
    for cell in tuned(table):
        groups.setdefault(cell.place.without("learning_rate", name), []).append(cell)
    found: list[tuple[Tuned, Tuned]] = []
    for cells in groups.values():
        ours = [cell for cell in cells if one(dict(cell.place.setting).get(name, ""))]
        theirs = [cell for cell in cells if other(dict(cell.place.setting).get(name, ""))]
        found += [(first, second) for first in ours for second in theirs]
    return found


def _schedule(table: Table) -> Answer:
    scaled, unit = in_points(table)
    pairs = _pairs(scaled, SCHEDULE, lambda text: text == "cosine", lambda text: text == "constant")
    if not pairs:
        return lacks("cells that differ in lr_scheduler_type = cosine and constant only")
    level = simultaneous(len(pairs))
    return judge(smallest([advantage(one, other, scaled, {}, level) for one, other in pairs]), unit, low=GAIN)


def _warm_up(table: Table) -> Answer:
    scaled, unit = in_points(table)
    pairs = _pairs(scaled, WARM_UP, lambda text: _number(text) == 0, lambda text: _number(text) > 0)
    if not pairs:
        return lacks("cells that differ in warmup_ratio = 0 and above 0 only")

    def worst(level: float) -> Estimate:
        return largest([magnitude(advantage(one, other, scaled, {}, level)) for one, other in pairs])

    return judge_family(worst, simultaneous(len(pairs)), unit, -math.inf, MARGIN)


def _number(text: str) -> float:
    return float(text) if text else math.nan


CLAIMS = (
    Claim(
        id="P13a",
        statement="A cosine schedule is better than a constant learning rate by 2 points or more.",
        source="Lee & Lee 2026, figure 4",
        needs="setting lr_scheduler_type with cosine and constant, two seeds",
        estimator="smallest lead of cosine over cells, each tuned, simultaneous intervals",
        threshold="at least 2 points, or 2 % of the loss",
        evaluate=when_tuned(_schedule),
    ),
    Claim(
        id="P13b",
        statement="Warm-up makes no difference at any batch size.",
        source="Lee & Lee 2026",
        needs="setting warmup_ratio with 0 and another value, two seeds",
        estimator="largest |difference| over cells, each tuned",
        threshold="at most 1 point, or 1 % of the loss",
        evaluate=when_tuned(_warm_up),
    ),
)
