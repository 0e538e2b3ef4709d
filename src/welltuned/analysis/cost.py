"""What each configuration and each method cost, and which configurations no other one beats in both metric and cost.

Costs are sums over runs, the diverged and stopped ones included: that is what was paid. A cost that some run of a group
does not state is None for the group, never a partial sum. Peak memory is the largest of the runs, not a sum.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from welltuned.analysis.grid import Mean, Place, means
from welltuned.analysis.runs import Run, Table

COSTS = ("num_tokens", "seconds", "flops", "peak_bytes")  # of one run, as `Run` names them


@dataclass(frozen=True)
class Cost:
    """What a group of runs cost."""

    place: Place
    num_runs: int
    num_diverged: int
    num_tokens: float | None
    seconds: float | None
    flops: float | None
    peak_bytes: float | None


@dataclass(frozen=True)
class Trade:
    """One configuration's metric and the mean cost of one of its runs."""

    place: Place
    value: float
    cost: float
    on_front: bool  # no other is at least as good in both and better in one


def method_costs(table: Table) -> tuple[Cost, ...]:
    """Return what each method cost in each problem, selection and reruns together."""
    return _costs(table, lambda place: place.without("learning_rate", "batch_size", "rank"))


def cell_costs(table: Table) -> tuple[Cost, ...]:
    """Return what tuning and rerunning each cell cost."""
    return _costs(table, lambda place: place.without("learning_rate"))


def _costs(table: Table, group_of: Callable[[Place], Place]) -> tuple[Cost, ...]:
    groups: defaultdict[Place, list[Run]] = defaultdict(list)
    chosen = means(table) if any(run.selected for run in table.runs) else ()
    for member in (*chosen, *means(table, fresh=True)):
        groups[group_of(member.place)] += member.runs
    return tuple(_cost(place, runs) for place, runs in groups.items())


def _cost(place: Place, runs: Sequence[Run]) -> Cost:
    return Cost(
        place=place,
        num_runs=sum(run.num_seeds for run in runs),
        num_diverged=sum(run.diverged for run in runs),
        num_tokens=_sum([(run.num_tokens, run.num_seeds) for run in runs]),
        seconds=_sum([(run.seconds, run.num_seeds) for run in runs]),
        flops=_sum([(run.flops, run.num_seeds) for run in runs]),
        peak_bytes=_largest([run.peak_bytes for run in runs]),
    )


def _sum(parts: Sequence[tuple[float | None, int]]) -> float | None:
    known = [cost * times for cost, times in parts if cost is not None]
    return math.fsum(known) if len(known) == len(parts) else None


def _largest(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return max(known) if len(known) == len(values) else None


def trades(table: Table, cost: str = "seconds") -> tuple[Trade, ...]:
    """Return every configuration with its Pareto flag within its problem; those of unknown cost are left out."""
    if cost not in COSTS:
        raise ValueError(f"cost: got {cost!r}, expected one of {', '.join(COSTS)}")
    found = [(member, spent) for member in means(table) if (spent := _one_run(member, cost)) is not None]
    result: list[Trade] = []
    for member, spent in found:
        rivals = [
            (table.sign * other.value, -other_spent)
            for other, other_spent in found
            if other.place.problem == member.place.problem
        ]
        mine = (table.sign * member.value, -spent)
        beaten = any(_dominates(rival, mine) for rival in rivals)
        result.append(Trade(member.place, member.value, spent, not beaten))
    return tuple(result)


def _one_run(member: Mean, cost: str) -> float | None:
    values: list[float | None] = [getattr(run, cost) for run in member.runs]
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known and len(known) == len(values) else None


def _dominates(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one[0] >= other[0] and one[1] >= other[1] and one != other
