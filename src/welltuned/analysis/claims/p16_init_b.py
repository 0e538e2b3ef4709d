"""P16: Init[B] with multiplier 1 has a learning rate that does not move with rank and is that of full fine-tuning."""

import math
from dataclasses import replace

import numpy as np

from welltuned.analysis.claims._claim import Answer, Claim, judge, lacks, largest, magnitude, simultaneous, smallest
from welltuned.analysis.claims._compare import FULL, INIT_B, LORA, by_method, find, generator, only_methods, when_tuned
from welltuned.analysis.claims._rates import judge_slope, rate_draws
from welltuned.analysis.estimate import Estimate, percentile
from welltuned.analysis.grid import advantage, tuned
from welltuned.analysis.rate_scaling import series
from welltuned.analysis.runs import Table
from welltuned.analysis.tunability import best_of

TOLERANCE = 0.1  # part of claim P16
FACTOR = 1.0  # doublings: within [1/2, 2]


def _init_b(table: Table) -> Table | None:
    """Return the runs of Init[B] whose multiplier is 1."""
    name = find(table, INIT_B)
    kept = [run for run in table.runs if run.method == name and run.scaling == 1.0]
    return table.only(kept) if name and kept else None


def _slope(table: Table) -> Answer:
    kept = _init_b(table)
    if kept is None:
        return lacks("Init[B] with a known multiplier of 1")
    return judge_slope(series(kept, "rank"), "rank", -TOLERANCE, TOLERANCE)


def _transfer(table: Table) -> Answer:
    """Compare eta* of Init[B] at each rank with that of full fine-tuning at the same batch size."""
    kept, full = _init_b(table), find(table, FULL)
    if kept is None or full is None:
        return lacks("Init[B] with a known multiplier of 1, and full fine-tuning")
    ours = rate_draws(kept, generator("P16b"))
    theirs = {
        replace(place.without("method", "rank"), setting=()): drawn
        for place, drawn in rate_draws(only_methods(table, full), generator("P16b full")).items()
    }
    pairs = [(drawn, theirs.get(replace(place.without("method", "rank"), setting=()))) for place, drawn in ours.items()]
    shared = [(one, other) for one, other in pairs if other is not None]
    if not shared:
        return lacks("enclosed optima of Init[B] and full fine-tuning at one batch size")
    family: list[Estimate] = []
    for (rate, twins), (full_rate, full_twins) in shared:
        value = (rate - full_rate) / math.log(2)
        if twins is None or full_twins is None:
            family.append(Estimate(value, None, None, "no interval: no configuration was run under two seeds"))
        else:
            drawn = np.asarray(twins - full_twins) / math.log(2)
            family.append(percentile(value, drawn, "parametric bootstrap over seeds", simultaneous(len(shared))))
    return judge(largest([magnitude(one) for one in family]), "doublings of eta*", high=FACTOR)


def _loses(table: Table) -> Answer:
    """Compare LoRA with Init[B] at the lowest rank that both have."""
    name, lora = find(table, INIT_B), find(table, LORA)
    if name is None or lora is None:
        return lacks("Init[B] and plain LoRA")
    groups = [
        (place.rank, methods)
        for place, methods in by_method(tuned(table), "batch_size").items()
        if name in methods and lora in methods and place.rank is not None
    ]
    if not groups:
        return lacks("a rank at which both Init[B] and plain LoRA were run")
    lowest = min(rank for rank, _ in groups)
    pairs = [(best_of(at[lora], table.sign), best_of(at[name], table.sign)) for rank, at in groups if rank == lowest]
    level = simultaneous(len(pairs))
    leads = [advantage(one, other, table, {}, level) for one, other in pairs]
    return judge(smallest(leads), table.metric, low=math.ulp(0.0), detail=f"at rank {lowest}")


CLAIMS = (
    Claim(
        id="P16a",
        statement="With Init[B] and multiplier 1 the optimal learning rate does not move with rank.",
        source="Chen, Villar, Hayou 2026, Theorem 4.5",
        needs="Init[B] at two ranks with a known multiplier of 1, enclosed optima",
        estimator="common slope of ln eta* on ln r",
        threshold="0 +- 0.1",
        evaluate=_slope,
    ),
    Claim(
        id="P16b",
        statement="That learning rate is within a factor of two of full fine-tuning's.",
        source="Chen, Villar, Hayou 2026",
        needs="Init[B] with a known multiplier of 1 and full fine-tuning, enclosed optima, two seeds",
        estimator="largest |log2 ratio of eta*| over ranks and batch sizes, simultaneous bootstrap intervals",
        threshold="at most 1",
        evaluate=_transfer,
    ),
    Claim(
        id="P16c",
        statement="At low rank Init[B] is worse than plain LoRA, both tuned.",
        source="our derivation: its progress goes as sqrt(r / n)",
        needs="Init[B] and LoRA at one rank, two seeds",
        estimator="lead of LoRA at the lowest shared rank",
        threshold="above 0",
        evaluate=when_tuned(_loses),
    ),
)
