"""P28, P29: what happens to the right of the optimal learning rate, and far to the left of it."""

import math
from collections.abc import Sequence

import numpy as np

from welltuned.analysis.claims._claim import Answer, Claim, judge, lacks, largest, magnitude, simultaneous, smallest
from welltuned.analysis.claims._compare import INIT_AB, LORA, PISSA, find, generator, grid_of, in_points, judge_family
from welltuned.analysis.estimate import Estimate, redrawn
from welltuned.analysis.grid import Mean, advantage, means, optimum_of, pooled_noise, uncertain
from welltuned.analysis.runs import Table

FAR = 16.0  # part of claim P29
NEAR_GRID = 2.0  # the grid's rate may be off by this factor; assumed
GAIN = 3.0  # points; part of claim P29
MARGIN = 1.0  # points; the protocol's margin


def _cells(table: Table, one: str, other: str) -> list[tuple[list[Mean], list[Mean]]]:
    """Return both methods' sweeps, ascending in rate, of every cell that both have."""
    found: list[tuple[list[Mean], list[Mean]]] = []
    for group in grid_of(means(table), "method", "learning_rate").values():
        rated = [member for member in group if member.place.learning_rate is not None]
        sweep = sorted(rated, key=lambda member: member.place.learning_rate or 0.0)
        ours = [member for member in sweep if member.place.method == one]
        theirs = [member for member in sweep if member.place.method == other]
        if ours and theirs:
            found.append((ours, theirs))
    return found


def _right(table: Table) -> Answer:
    """Fit score against log10 eta from the best rate on; the difference of the falls, LoRA's minus PiSSA's."""
    pissa, lora = find(table, PISSA), find(table, LORA)
    if pissa is None or lora is None:
        return lacks("PiSSA and plain LoRA")
    scaled, unit = in_points(table)
    tails = [(_tail(ours, scaled.sign), _tail(theirs, scaled.sign)) for ours, theirs in _cells(scaled, pissa, lora)]
    tails = [(ours, theirs) for ours, theirs in tails if len(ours) > 1 and len(theirs) > 1]
    if not tails:
        return lacks("learning rates above the best one for PiSSA and LoRA in one cell")
    noise, level = pooled_noise(scaled), simultaneous(len(tails))
    found: list[Estimate] = []
    for at, (ours, theirs) in enumerate(tails):
        weights = np.concatenate([_slope_weights(ours), -_slope_weights(theirs)]) * scaled.sign
        sure = [uncertain(member, noise) for member in (*ours, *theirs)]
        found.append(redrawn(sure, lambda values, w=weights: float(w @ values), generator(f"P28 {at}"), level=level))
    detail = f"{len(tails)} cells; the fall includes diverged runs at their declared value"
    return judge(smallest(found), f"{unit} a decade", low=math.ulp(0.0), detail=detail)


def _tail(sweep: Sequence[Mean], sign: int) -> list[Mean]:
    best = max(range(len(sweep)), key=lambda index: sign * sweep[index].value)
    return list(sweep[best:])


def _slope_weights(tail: Sequence[Mean]) -> np.ndarray:
    """Return the weights that make least squares' slope of value on log10 eta."""
    x = np.log10([member.place.learning_rate or 1.0 for member in tail])
    return (x - x.mean()) / ((x - x.mean()) ** 2).sum()


def _left(table: Table, divisor: float) -> tuple[Table, str, list[tuple[Mean, Mean]]]:
    """Return Init[AB] and LoRA at the grid's rate nearest to LoRA's eta* / divisor, in every cell that has one."""
    scaled, unit = in_points(table)
    one, other = find(table, INIT_AB), find(table, LORA)
    found: list[tuple[Mean, Mean]] = []
    for ours, theirs in _cells(scaled, one or "", other or ""):
        bottom = optimum_of(scaled, theirs)
        if bottom is None or bottom.learning_rate is None:
            continue
        aim = bottom.learning_rate / divisor
        by_rate = {member.place.learning_rate: member for member in theirs}
        pairs = [(member, by_rate[rate]) for member in ours if (rate := member.place.learning_rate) in by_rate]
        near = [pair for pair in pairs if 1 / NEAR_GRID <= (pair[0].place.learning_rate or 0.0) / aim <= NEAR_GRID]
        if near:
            found.append(min(near, key=lambda pair: abs(math.log((pair[0].place.learning_rate or 1.0) / aim))))
    return scaled, unit, found


def _small_rate(table: Table) -> Answer:
    if find(table, INIT_AB) is None or find(table, LORA) is None:
        return lacks("Init[AB] and plain LoRA")
    scaled, unit, pairs = _left(table, FAR)
    if not pairs:
        return lacks("Init[AB] and LoRA at a sixteenth of LoRA's optimal learning rate (within a factor of 2)")
    noise, level = pooled_noise(scaled), simultaneous(len(pairs))
    found = [advantage(one, other, scaled, noise, level) for one, other in pairs]
    return judge(smallest(found), unit, low=GAIN, detail=f"{len(pairs)} cells")


def _at_optimum(table: Table) -> Answer:
    if find(table, INIT_AB) is None or find(table, LORA) is None:
        return lacks("Init[AB] and plain LoRA")
    scaled, unit, pairs = _left(table, 1.0)
    if not pairs:
        return lacks("Init[AB] and LoRA at LoRA's optimal learning rate")
    noise = pooled_noise(scaled)

    def worst(level: float) -> Estimate:
        return largest([magnitude(advantage(one, other, scaled, noise, level)) for one, other in pairs])

    return judge_family(worst, simultaneous(len(pairs)), unit, -math.inf, MARGIN, f"{len(pairs)} cells")


CLAIMS = (
    Claim(
        id="P28",
        statement="Past its best learning rate PiSSA falls more gently than LoRA.",
        source='"Learning Rate Matters" (2026): 17 % against 1 % at 2e-3',
        needs="PiSSA and LoRA in one cell, each with a learning rate above its best, two seeds of some configuration",
        estimator="slope past the peak per decade, LoRA's fall minus PiSSA's, the smallest over cells; bootstrap",
        threshold="above 0",
        evaluate=_right,
    ),
    Claim(
        id="P29a",
        statement="At a sixteenth of LoRA's best learning rate Init[AB] leads LoRA by 3 points.",
        source='"Learning Rate Matters" (2026), Qwen: +4.2, +9.3; against it Gemma',
        needs="Init[AB] and LoRA at a sixteenth of LoRA's enclosed optimum, two seeds of some configuration",
        estimator="smallest lead over cells, at the nearest rate within a factor of 2, simultaneous intervals",
        threshold="at least 3 points, or 3 % of the loss",
        evaluate=_small_rate,
    ),
    Claim(
        id="P29b",
        statement="At LoRA's best learning rate Init[AB] and LoRA are equal.",
        source='"Learning Rate Matters" (2026)',
        needs="Init[AB] and LoRA near LoRA's enclosed optimum, two seeds of some configuration",
        estimator="largest |difference| over cells at the nearest rate",
        threshold="at most 1 point, or 1 % of the loss",
        evaluate=_at_optimum,
    ),
)
