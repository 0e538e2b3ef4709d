"""P2, P3: a fixed learning rate, or a fixed batch size, decides which method is ahead."""

import math

from welltuned.analysis.claims._claim import Answer, Claim, judge, lacks, largest, simultaneous
from welltuned.analysis.claims._compare import LORA, MILORA, PISSA, by_method, change_of_sign, find, grid_of, in_points
from welltuned.analysis.estimate import Estimate
from welltuned.analysis.grid import Mean, Tuned, advantage, means, pooled_noise, tuned
from welltuned.analysis.runs import Table

Pair = tuple[Mean | Tuned, Mean | Tuned]


def _by_rate(table: Table) -> Answer:
    """Compare along the learning rates of each batch size and rank, ascending: PiSSA ahead first, LoRA later."""
    return _along(table, PISSA, LORA, "learning_rate", ordered=True)


def _by_batch(table: Table) -> Answer:
    return _along(table, PISSA, MILORA, "batch_size", ordered=False)


def _along(table: Table, one: tuple[str, ...], other: tuple[str, ...], knob: str, ordered: bool) -> Answer:
    names = (find(table, one), find(table, other))
    if names[0] is None or names[1] is None:
        return lacks(f"{one[0]} and {other[0]}")
    scaled, unit = in_points(table)
    lines: list[list[Pair]] = []
    for group in grid_of(means(scaled), knob, "method").values():
        found: dict[float, dict[str, Mean]] = {}
        for member in group:
            value = getattr(member.place, knob)
            if value is not None:
                found.setdefault(value, {})[member.place.method] = member
        lines.append([(at[names[0]], at[names[1]]) for _, at in sorted(found.items()) if set(names) <= set(at)])
    return _judged(scaled, lines, unit, ordered, knob.replace("_", " "))


def _tuned_by_batch(table: Table) -> Answer:
    one, other = find(table, PISSA), find(table, MILORA)
    if one is None or other is None:
        return lacks("pissa and milora")
    scaled, unit = in_points(table)
    groups: dict[object, list[tuple[int, Pair]]] = {}
    for place, methods in by_method(tuned(scaled)).items():
        if one in methods and other in methods and place.batch_size is not None:
            line = groups.setdefault(place.without("batch_size"), [])
            line.append((place.batch_size, (methods[one][0], methods[other][0])))
    lines = [[pair for _, pair in sorted(line, key=lambda entry: entry[0])] for line in groups.values()]
    return _judged(scaled, lines, unit, False, "batch size")


def _judged(table: Table, lines: list[list[Pair]], unit: str, ordered: bool, knob: str) -> Answer:
    lines = [line for line in lines if len(line) > 1]
    if not lines:
        return lacks(f"two {knob}s at which both methods were run, all else equal")
    count = sum(len(line) for line in lines)
    noise, level = pooled_noise(table), simultaneous(count)
    found: list[Estimate] = []
    for line in lines:
        found.append(change_of_sign([advantage(one, other, table, noise, level) for one, other in line], ordered))
    detail = f"{count} comparisons in {len(lines)} series"
    return judge(largest(found), unit, low=math.ulp(0.0), detail=detail)


ESTIMATOR = "largest change of sign: max over pairs of min(lead at one, deficit at the other), simultaneous intervals"

CLAIMS = (
    Claim(
        id="P2",
        statement="At one batch size PiSSA leads LoRA at a low learning rate and trails it at a high one.",
        source='"Learning Rate Matters" (2026): Qwen +1.1 at 2e-5, -9.3 at 3.6e-4',
        needs="PiSSA and LoRA at two shared learning rates of one batch size, two seeds",
        estimator=ESTIMATOR,
        threshold="above 0",
        evaluate=_by_rate,
    ),
    Claim(
        id="P3a",
        statement="At one fixed learning rate PiSSA and MiLoRA change places over batch size.",
        source="Lee & Lee 2026 (arXiv 2602.09492)",
        needs="PiSSA and MiLoRA at two shared batch sizes of one learning rate, two seeds",
        estimator=ESTIMATOR,
        threshold="above 0",
        evaluate=_by_batch,
    ),
    Claim(
        id="P3b",
        statement="PiSSA and MiLoRA change places over batch size even with the learning rate tuned at each.",
        source="Lee & Lee 2026, figure 1",
        needs="PiSSA and MiLoRA tuned at two shared batch sizes, two seeds",
        estimator=ESTIMATOR,
        threshold="above 0",
        evaluate=_tuned_by_batch,
    ),
)
