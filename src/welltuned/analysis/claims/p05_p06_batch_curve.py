"""P5, P6: how much batch size matters to tuned LoRA, and what shape its curve has."""

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np

from welltuned.analysis.claims._claim import Answer, Claim, Verdict, judge, lacks, largest, simultaneous, smallest
from welltuned.analysis.claims._compare import LORA, find, generator, in_points, only_methods, when_tuned
from welltuned.analysis.estimate import Estimate, percentile, redraw
from welltuned.analysis.grid import Tuned, advantage
from welltuned.analysis.optimum_batch import BatchCurve, curves
from welltuned.analysis.runs import Table

MOVES = 10.0  # points; Lee & Lee 2026
WIDE = 128.0  # 4 to 512, the span that the claim speaks of
PLATEAU = 64  # part of claim P6

Compare = Callable[[Tuned, Tuned], Estimate]


def _curves(table: Table, fewest: int) -> tuple[Table, str, list[BatchCurve]]:
    lora = find(table, LORA)
    scaled, unit = in_points(table)
    kept = only_methods(scaled, lora) if lora else scaled.only([])
    return kept, unit, [curve for curve in curves(kept) if len(curve.points) >= fewest]


def _every(
    table: Table, fewest: int, of: Callable[[Sequence[Tuned], Compare], Estimate]
) -> tuple[Estimate | None, str]:
    """Return the smallest over LoRA's curves of a statistic of pairwise comparisons, and the unit."""
    kept, unit, found = _curves(table, fewest)
    if not found:
        return None, unit
    level = simultaneous(sum(math.comb(len(curve.points), 2) for curve in found))

    def compare(one: Tuned, other: Tuned) -> Estimate:
        return advantage(one, other, kept, {}, level)

    return smallest([of(curve.points, compare) for curve in found]), unit


def _range(table: Table) -> Answer:
    number, unit = _every(
        table,
        2,
        lambda points, compare: largest([compare(one, other) for one, other in itertools.permutations(points, 2)]),
    )
    if number is None:
        return lacks("LoRA at two batch sizes")
    answer = judge(number, unit, low=MOVES)
    span = max(curve.batches[-1] / curve.batches[0] for curve in _curves(table, 2)[2])
    if answer.verdict is Verdict.CONTRADICTED and span < WIDE:
        detail = f"the batch sizes span a factor of {span:g} only, and the claim is of {WIDE:g}"
        return Answer(Verdict.UNDECIDED, number, unit, detail)
    return answer


def _interior(table: Table) -> Answer:
    number, unit = _every(
        table, 2, lambda points, compare: largest([compare(later, points[0]) for later in points[1:]])
    )
    return lacks("LoRA at two batch sizes") if number is None else judge(number, unit, low=math.ulp(0.0))


def _wave(table: Table) -> Answer:
    """Look for sizes i < j < k < l with a drop to j, a rise to k and a drop to l: max of the min of the three."""

    def of(points: Sequence[Tuned], compare: Compare) -> Estimate:
        return largest(
            [
                smallest(
                    [compare(points[i], points[j]), compare(points[k], points[j]), compare(points[k], points[last])]
                )
                for i, j, k, last in itertools.combinations(range(len(points)), 4)
            ]
        )

    number, unit = _every(table, 4, of)
    return lacks("LoRA at four batch sizes") if number is None else judge(number, unit, low=math.ulp(0.0))


def _plateau(table: Table) -> Answer:
    """Redraw LoRA's curve: the largest size within one standard error of the best in each draw."""
    kept, _, found = _curves(table, 2)
    found = [curve for curve in found if curve.batches[-1] >= PLATEAU > curve.batches[0]]
    if not found:
        return lacks(f"LoRA at batch sizes below and from {PLATEAU} on")
    family: list[Estimate] = []
    for curve in found:
        draws = redraw([point.uncertain for point in curve.points], generator("P6b"))
        values = np.array([point.value for point in curve.points])
        errors = np.array([point.error or 0.0 for point in curve.points])
        best = _efficient(kept.sign * values, errors, curve.batches)
        if draws is None:
            family.append(Estimate(best, None, None, "no interval: no configuration was run under two seeds"))
        else:
            sizes = [_efficient(kept.sign * draw, errors, curve.batches) for draw in draws]
            family.append(percentile(best, sizes, "parametric bootstrap over seeds", simultaneous(len(found))))
    return judge(smallest(family), "sequences", low=PLATEAU)


def _efficient(scores: np.ndarray, errors: np.ndarray, batches: Sequence[int]) -> float:
    at = int(scores.argmax())
    near = scores >= scores[at] - errors[at]
    return float(max(batch for batch, is_near in zip(batches, near, strict=True) if is_near))


CLAIMS = (
    Claim(
        id="P5",
        statement="Batch size alone moves tuned LoRA by more than 10 points.",
        source="Lee & Lee 2026, figure 1",
        needs="LoRA tuned at two batch sizes (contradiction: over a factor of 128), two seeds",
        estimator="best minus worst tuned value over batch sizes, simultaneous intervals; the smallest over curves",
        threshold="above 10 points, or 10 % of the loss",
        evaluate=when_tuned(_range),
    ),
    Claim(
        id="P6a",
        statement="The best batch size of tuned LoRA is larger than the smallest tried.",
        source="Lee & Lee 2026; against it LoRA Without Regret",
        needs="LoRA tuned at two batch sizes, two seeds",
        estimator="largest lead of a larger batch size over the smallest, simultaneous intervals",
        threshold="above 0",
        evaluate=when_tuned(_interior),
    ),
    Claim(
        id="P6b",
        statement="Tuned LoRA loses nothing up to a batch size of 64.",
        source='"Learning Rate Matters" (2026), v2',
        needs="LoRA tuned at batch sizes on both sides of 64, two seeds",
        estimator="efficient batch: the largest within one standard error of the best",
        threshold="at least 64",
        evaluate=when_tuned(_plateau),
    ),
    Claim(
        id="P6c",
        statement="Over batch size tuned LoRA drops, rises at intermediate sizes, and drops again.",
        source="first draft of Lee & Lee 2026",
        needs="LoRA tuned at four batch sizes, two seeds",
        estimator="max over four sizes of min(first drop, rise, last drop), simultaneous intervals",
        threshold="above 0",
        evaluate=when_tuned(_wave),
    ),
)
