"""P30: what rank does to the methods: DoRA helps at low rank, PiSSA at high rank, and more rank never hurts."""

import itertools
import math
from collections.abc import Sequence
from typing import TypeVar

from welltuned.analysis.claims._claim import Answer, Claim, judge, lacks, largest, magnitude, simultaneous, smallest
from welltuned.analysis.claims._compare import (
    DORA,
    LORA,
    PISSA,
    by_method,
    find,
    grid_of,
    in_points,
    judge_family,
    when_tuned,
)
from welltuned.analysis.estimate import Estimate
from welltuned.analysis.grid import Mean, Tuned, advantage, means, pooled_noise, tuned
from welltuned.analysis.runs import Table
from welltuned.analysis.tunability import best_of

Member = TypeVar("Member", Mean, Tuned)
MARGIN = 1.0  # points; the protocol's margin, for "about 0" and "monotone"


def _leads(table: Table, names: tuple[str, ...], low: int, high: float) -> tuple[Table, str, list[tuple[Tuned, Tuned]]]:
    """Return a method and LoRA, each at its best, at every rank within [low, high]."""
    scaled, unit = in_points(table)
    method, lora = find(table, names), find(table, LORA)
    pairs: list[tuple[Tuned, Tuned]] = []
    for place, methods in by_method(tuned(scaled), "batch_size").items():
        if method in methods and lora in methods and place.rank is not None and low <= place.rank <= high:
            pairs.append((best_of(methods[method], scaled.sign), best_of(methods[lora], scaled.sign)))
    return scaled, unit, pairs


def _ahead(table: Table, names: tuple[str, ...], low: int, high: float, wanted: str) -> Answer:
    scaled, unit, pairs = _leads(table, names, low, high)
    if not pairs:
        bound = f"up to {high:g}" if low <= 1 else f"from {low}"
        return lacks(f"{names[0]} and LoRA at a rank {bound}")
    detail = f"{len(pairs)} comparison{'s' if len(pairs) > 1 else ''}"
    level = simultaneous(len(pairs))
    found = [advantage(one, other, scaled, {}, level) for one, other in pairs]
    if wanted == "ahead":
        return judge(smallest(found), unit, low=math.ulp(0.0), detail=detail)
    if wanted == "behind":
        return judge(largest(found), unit, high=-math.ulp(0.0), detail=detail)
    if wanted == "not behind":
        return judge(smallest(found), unit, low=0.0, detail=detail)

    def worst(at: float) -> Estimate:
        return largest([magnitude(advantage(one, other, scaled, {}, at)) for one, other in pairs])

    return judge_family(worst, level, unit, -math.inf, MARGIN, detail)


def _monotone(table: Table) -> Answer:
    """Find the largest fall from a lower to a higher rank, all tuned, at one batch size and method."""
    scaled, unit = in_points(table)
    groups: dict[object, list[Tuned]] = {}
    for cell in tuned(scaled):
        if cell.place.rank is not None:
            groups.setdefault(cell.place.without("learning_rate", "rank", "alpha"), []).append(cell)
    pairs = _rising([sorted(group, key=lambda cell: cell.place.rank or 0) for group in groups.values()])
    if not pairs:
        return lacks("a method tuned at two ranks")
    level = simultaneous(len(pairs))
    falls = [advantage(low, high, scaled, {}, level) for low, high in pairs]
    return judge(largest(falls), unit, high=MARGIN, detail=f"{len(pairs)} comparisons")


def _fixed_rate(table: Table) -> Answer:
    """Find the largest fall from a lower to a higher rank at one fixed learning rate."""
    scaled, unit = in_points(table)
    groups = [
        sorted((member for member in group if member.place.rank is not None), key=lambda one: one.place.rank or 0)
        for place, group in grid_of(means(scaled), "rank").items()
        if place.learning_rate is not None
    ]
    pairs = _rising(groups)
    if not pairs:
        return lacks("a method at two ranks at one learning rate")
    noise, level = pooled_noise(scaled), simultaneous(len(pairs))
    falls = [advantage(low, high, scaled, noise, level) for low, high in pairs]
    return judge(largest(falls), unit, low=MARGIN, detail=f"{len(pairs)} comparisons")


def _rising(groups: Sequence[Sequence[Member]]) -> list[tuple[Member, Member]]:
    return [pair for group in groups for pair in itertools.combinations(group, 2)]


def _claim(letter: str, statement: str, names: tuple[str, ...], low: int, high: float, wanted: str) -> Claim:
    thresholds = {"ahead": "above 0", "behind": "below 0", "not behind": "at least 0", "equal": "at most 1 point"}
    where = f"at ranks up to {high:g}" if low <= 1 else f"at ranks from {low}"
    return Claim(
        id=f"P30{letter}",
        statement=statement,
        source='"Learning Rate Matters" (2026)',
        needs=f"{names[0]} and LoRA tuned {where}, two seeds",
        estimator="lead over LoRA at each rank, each at its best batch size, simultaneous intervals",
        threshold=thresholds[wanted],
        evaluate=when_tuned(lambda table: _ahead(table, names, low, high, wanted)),
    )


CLAIMS = (
    _claim("a", "DoRA is better than LoRA at ranks up to 8.", DORA, 1, 8, "ahead"),
    _claim("b", "DoRA equals LoRA at ranks from 64.", DORA, 64, math.inf, "equal"),
    _claim("c", "PiSSA is worse than LoRA at ranks up to 32.", PISSA, 1, 32, "behind"),
    _claim("d", "PiSSA is no worse than LoRA at ranks from 128.", PISSA, 128, math.inf, "not behind"),
    Claim(
        id="P30e",
        statement="With tuned learning rates no method loses from more rank.",
        source='"Learning Rate Matters" (2026)',
        needs="a method tuned at two ranks, two seeds",
        estimator="largest fall from a lower to a higher rank, simultaneous intervals",
        threshold="at most 1 point, or 1 % of the loss",
        evaluate=when_tuned(_monotone),
    ),
    Claim(
        id="P30f",
        statement="At one fixed learning rate more rank can hurt.",
        source='"Learning Rate Matters" (2026)',
        needs="a method at two ranks at one learning rate, two seeds of some configuration",
        estimator="largest fall from a lower to a higher rank, simultaneous intervals",
        threshold="at least 1 point, or 1 % of the loss",
        evaluate=_fixed_rate,
    ),
)
