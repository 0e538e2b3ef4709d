"""P32: what was selected on looks too good, and fixed configurations show differences that tuning takes away."""

import math

from welltuned.analysis.claims._claim import Answer, Claim, judge, lacks
from welltuned.analysis.claims._compare import LORA, by_method, find, grid_of, in_points
from welltuned.analysis.estimate import CONFIDENCE, Estimate, t_interval
from welltuned.analysis.grid import advantage, means, pooled_noise, tuned
from welltuned.analysis.runs import Table
from welltuned.analysis.tunability import best_of

RATIO = 3.0  # phenomena.md P32
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
    for group in grid_of(means(table), "method").values():
        by_name = {member.place.method: member for member in group}
        others = [member for name, member in by_name.items() if name != lora]
        if lora in by_name:
            fixed += [abs(advantage(other, by_name[lora], table, noise).sign) for other in others]
    when_tuned: list[int] = []
    for methods in by_method(tuned(table), "batch_size").values():
        if lora in methods:
            base = best_of(methods[lora], table.sign)
            others = [best_of(cells, table.sign) for name, cells in methods.items() if name != lora]
            when_tuned += [abs(advantage(other, base, table, {}).sign) for other in others]
    if not fixed or not when_tuned:
        return lacks("LoRA and another method at one fixed configuration")
    if not noise:
        return lacks("two seeds of any configuration")
    detail = (
        f"beyond 95 %: {sum(fixed)} of {len(fixed)} fixed comparisons and {sum(when_tuned)} of {len(when_tuned)} tuned; "
        "the interval takes comparisons for independent, which makes it too narrow"
    )
    return judge(_ratio(sum(fixed), len(fixed), sum(when_tuned), len(when_tuned)), "ratio", low=RATIO, detail=detail)


def _ratio(hits: int, size: int, other_hits: int, other_size: int) -> Estimate:
    """Return the ratio of two shares with Katz's log interval, half a hit added to each (Walter 1975)."""
    from scipy.special import ndtri

    shares = (hits + 0.5) / (size + 0.5), (other_hits + 0.5) / (other_size + 0.5)
    log = math.log(shares[0] / shares[1])
    variance = 1 / (hits + 0.5) - 1 / (size + 0.5) + 1 / (other_hits + 0.5) - 1 / (other_size + 0.5)
    half = float(ndtri(0.5 + CONFIDENCE / 2)) * math.sqrt(max(variance, 0.0))
    basis = "ratio of shares, Katz's log interval"
    return Estimate(math.exp(log), math.exp(log - half), math.exp(log + half), basis)


CLAIMS = (
    Claim(
        id="P32a",
        statement="A value that was selected on is better than the same configuration's on fresh seeds.",
        source="methods.md C6; phenomena.md P32",
        needs="two cells with selection runs and fresh reruns",
        estimator="mean over cells of the selected minus the fresh value, Student's t over cells",
        threshold="above 0",
        evaluate=_optimism,
    ),
    Claim(
        id="P32b",
        statement="Fixed configurations show three times as many significant differences to LoRA as tuned ones.",
        source="phenomena.md P32",
        needs="LoRA and another method at shared configurations, two seeds of some configuration",
        estimator="ratio of the shares of comparisons whose 95 % interval excludes 0",
        threshold="at least 3",
        evaluate=_wins,
    ),
)
