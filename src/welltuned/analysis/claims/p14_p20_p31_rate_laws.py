"""P14, P20, P31: how the optimal learning rate moves with rank, with the adapter's multiplier and with the data."""

import math

from welltuned.analysis.claims._claim import Answer, Claim, lacks
from welltuned.analysis.claims._compare import LORA, find, only_methods
from welltuned.analysis.claims._rates import judge_slope
from welltuned.analysis.rate_scaling import Series, series
from welltuned.analysis.runs import Table

TOLERANCE = 0.1  # part of claim P14, P31
MULTIPLIER_TOLERANCE = 0.15  # assumed, as in P12: apart from the contrary -1
SAME_LAW = 0.05  # of the multiplier's own exponent in r; assumed


def _versus_rank(table: Table, law: float, centre: float) -> Answer:
    """Judge the series of plain LoRA whose multiplier goes as r^law."""
    lora = find(table, LORA)
    if lora is None:
        return lacks("plain LoRA")
    kept = only_methods(table, lora)
    members = tuple(member for member in series(kept, "rank") if _follows(kept, member, law))
    if not members:
        return lacks(f"LoRA at two ranks with a known multiplier that goes as r^{law:g}")
    return judge_slope(members, "rank", centre - TOLERANCE, centre + TOLERANCE)


def _follows(table: Table, member: Series, law: float) -> bool:
    scalings = {
        run.rank: run.scaling
        for run in table.runs
        if run.rank is not None
        and run.scaling is not None
        and any(_is_of(run.rank, point.x) for point in member.points)
        and all(pair in run.setting for pair in member.place.setting)
    }
    if len(scalings) < 2:
        return False
    low, high = min(scalings), max(scalings)
    found = math.log(scalings[high] / scalings[low]) / math.log(high / low)
    return abs(found - law) <= SAME_LAW


def _is_of(rank: int, x: float) -> bool:
    return rank == round(x)


def _versus_multiplier(table: Table) -> Answer:
    lora = find(table, LORA)
    if lora is None:
        return lacks("plain LoRA")
    kept = only_methods(table, lora)
    if len({run.scaling for run in kept.runs}) < 2:
        return lacks("LoRA with two multipliers at one rank")
    low, high = -0.5 - MULTIPLIER_TOLERANCE, -0.5 + MULTIPLIER_TOLERANCE
    return judge_slope(series(kept, "scaling"), "scaling", low, high)


def _versus_data(table: Table) -> Answer:
    if len({run.num_train for run in table.runs if run.num_train is not None}) < 2:
        return lacks("two sizes of the training data")
    return judge_slope(series(table, "num_train"), "num_train", -0.2 - TOLERANCE, -0.2 + TOLERANCE)


def _rank_claim(letter: str, policy: str, law: float, centre: float, source: str) -> Claim:
    return Claim(
        id=f"P14{letter}",
        statement=f"With {policy} LoRA's optimal learning rate goes as r^{centre:g}.",
        source=source,
        needs="LoRA at two ranks, their multipliers, enclosed optima",
        estimator="common slope of ln eta* on ln r",
        threshold=f"{centre:g} +- {TOLERANCE:g}",
        evaluate=lambda table: _versus_rank(table, law, centre),
    )


CLAIMS = (
    _rank_claim("a", "lora_alpha = r (multiplier 1)", 0.0, -0.5, "Chen, Villar, Hayou 2026 (muA)"),
    _rank_claim("b", "rsLoRA (multiplier ~ 1/sqrt r)", -0.5, -0.25, "Chen, Villar, Hayou 2026 (muA)"),
    _rank_claim("c", "constant lora_alpha (multiplier ~ 1/r)", -1.0, 0.0, "muA; LoRA Without Regret 2025"),
    Claim(
        id="P20",
        statement="At a fixed rank the optimal learning rate goes as one over the root of the multiplier.",
        source="LoRA Without Regret's invariance; against it -1",
        needs="LoRA at one rank with two multipliers, enclosed optima",
        estimator="common slope of ln eta* on ln scaling",
        threshold=f"-0.5 +- {MULTIPLIER_TOLERANCE:g}",
        evaluate=_versus_multiplier,
    ),
    Claim(
        id="P31",
        statement="The optimal learning rate falls slowly with the amount of training data.",
        source='"Learning Rate Matters" (2026), Gemma: -0.20',
        needs="two sizes of the training data at one batch size, enclosed optima",
        estimator="common slope of ln eta* on ln N",
        threshold="-0.2 +- 0.1",
        evaluate=_versus_data,
    ),
)
