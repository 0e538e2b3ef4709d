"""P32: what was selected on looks too good, and fixed configurations show differences that tuning takes away."""

import math

from welltuned.analysis.claims._claim import Answer, Claim, judge, lacks, simultaneous
from welltuned.analysis.claims._compare import LORA, by_method, find, grid_of, in_points, when_tuned
from welltuned.analysis.estimate import Estimate, t_interval
from welltuned.analysis.grid import advantage, cells, means, pooled_noise, tuned
from welltuned.analysis.runs import Table
from welltuned.analysis.tunability import best_of

RATIO = 3.0  # part of claim P32
TWO = 2  # cells, for a mean with an interval


def _optimism(table: Table) -> Answer:
    """Average over cells the selected value minus that of the reruns of the same configuration."""
    scaled, unit = in_points(table)
    gaps = [
        scaled.sign * (cell.selection_value - cell.value)
        for cell in tuned(scaled)
        if cell.fresh and cell.selection_value is not None
    ]
    if len(gaps) < TWO:
        return lacks("two cells with both a selected value and reruns on fresh seeds")
    mean = math.fsum(gaps) / len(gaps)
    error = math.sqrt(math.fsum((gap - mean) ** 2 for gap in gaps) / (len(gaps) - 1) / len(gaps))
    number = t_interval(mean, error, len(gaps) - 1, f"{len(gaps)} cells, Student's t")
    return judge(number, unit, low=math.ulp(0.0))


def _wins(table: Table) -> Answer:
    """Compare how often LoRA and another method differ beyond 95 % at a fixed configuration and when tuned."""
    lora = find(table, LORA)
    if lora is None:
        return lacks("plain LoRA")
    noise = pooled_noise(table)
    fixed: list[int] = []
    if not any(len(cell) > 1 for cell in cells(means(table)).values()):
        return lacks("two learning rates in any cell: its configurations were not fixed but tuned")
    for group in grid_of(means(table), "method").values():
        by_name = {member.place.method: member for member in group}
        others = [member for name, member in by_name.items() if name != lora]
        if lora in by_name:
            fixed += [abs(advantage(other, by_name[lora], table, noise).sign) for other in others]
    when_tuned: list[int] = []
    for methods in by_method(tuned(table), "batch_size").values():
        if lora in methods:
            base = best_of(methods[lora], table.sign)
            others = [best_of(found, table.sign) for name, found in methods.items() if name != lora]
            when_tuned += [abs(advantage(other, base, table, {}).sign) for other in others]
    if not fixed or not when_tuned:
        return lacks("LoRA and another method at one fixed configuration")
    if not noise:
        return lacks("two seeds of any configuration")
    detail = (
        f"beyond 95 %: {sum(fixed)} of {len(fixed)} fixed and {sum(when_tuned)} of {len(when_tuned)} tuned; "
        "the interval takes comparisons for independent, which makes it too narrow"
    )
    return judge(_ratio(sum(fixed), len(fixed), sum(when_tuned), len(when_tuned)), "ratio", low=RATIO, detail=detail)


def _ratio(hits: int, size: int, other_hits: int, other_size: int) -> Estimate:
    """Return the ratio of two shares; the interval joins those of Clopper and Pearson at 97.5 % each (Bonferroni)."""
    ours, theirs = _share(hits, size), _share(other_hits, other_size)
    value = (hits + 0.5) / (size + 0.5) / ((other_hits + 0.5) / (other_size + 0.5))
    high = ours[1] / theirs[0] if theirs[0] > 0 else math.inf
    return Estimate(value, ours[0] / theirs[1], high, "two Clopper-Pearson intervals of comparisons")


def _share(hits: int, size: int) -> tuple[float, float]:
    from scipy.special import betaincinv

    tail = (1 - simultaneous(2)) / 2
    low = float(betaincinv(hits, size - hits + 1, tail)) if hits else 0.0
    high = float(betaincinv(hits + 1, size - hits, 1 - tail)) if hits < size else 1.0
    return low, high


CLAIMS = (
    Claim(
        id="P32a",
        statement="A value that was selected on is better than the same configuration's on fresh seeds.",
        source="extreme values: the best of k is too good by about sd sqrt(2 ln k)",
        needs="two cells with selection runs and fresh reruns",
        estimator="mean over cells of the selected minus the fresh value, Student's t over cells",
        threshold="above 0",
        evaluate=_optimism,
    ),
    Claim(
        id="P32b",
        statement="Fixed configurations show three times as many significant differences to LoRA as tuned ones.",
        source="our expectation, set beforehand",
        needs="LoRA and another method at shared configurations, two seeds of some configuration",
        estimator="ratio of the shares of comparisons whose 95 % interval excludes 0, Clopper-Pearson",
        threshold="at least 3",
        evaluate=when_tuned(_wins),
    ),
)
