"""Tables with a known truth for the analyses: a value for each method, rank, batch size and rate, plus seed noise."""

import math
from collections.abc import Callable, Iterable
from dataclasses import replace

from welltuned import rng
from welltuned.analysis.runs import Run, Table

RATES = tuple(10 ** (exponent / 4) for exponent in range(-16, -5))
Value = Callable[[Run], float]


def table(
    value: Value,
    methods: Iterable[str] = ("lora",),
    batches: Iterable[int | None] = (16,),
    ranks: Iterable[int | None] = (8,),
    rates: Iterable[float | None] = RATES,
    seeds: int = 3,
    noise: float = 0.0,
    higher: bool = True,
    **fields: object,
) -> Table:
    """Return a full grid of selection runs whose values are the planted ones plus independent normal noise.

    The values of `fields` go to every run: problem, setting, num_train, scaling, seconds, ...
    """
    runs = []
    for method in methods:
        for rank in ranks:
            for batch in batches:
                for rate in rates:
                    for seed in range(seeds):
                        run = Run(method, 0.0, rate, batch, rank, str(seed), **fields)
                        draw = rng.stream(seed, "planted", method, str(rank), str(batch), str(rate), str(fields))
                        runs.append(replace(run, value=value(run) + noise * float(draw.normal())))
    return Table(tuple(runs), "accuracy" if higher else "loss", higher)


def joined(*tables: Table) -> Table:
    """Return one table of all runs."""
    return tables[0].only([run for one in tables for run in one.runs])


def refined(one: Table, noise: float, seeds: int = 3) -> Table:
    """Return the table with `seeds` fresh reruns of every configuration, as reruns of all of them would be."""
    fresh = []
    for run in one.runs:
        if run.seed == "0":
            for seed in range(100, 100 + seeds):
                draw = rng.stream(seed, "fresh", str(run))
                fresh.append(
                    replace(run, seed=str(seed), selected=False, value=run.value + noise * float(draw.normal()))
                )
    return one.only([*one.runs, *fresh])


def valley(run: Run, best_log10: float, top: float, curvature: float = 0.1) -> float:
    """Return an accuracy that falls as a parabola of log10 of the rate."""
    return top - curvature * (math.log10(run.learning_rate or 1.0) - best_log10) ** 2
