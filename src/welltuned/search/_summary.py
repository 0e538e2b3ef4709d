"""What a guided search believes, summed up: the best candidate, the optimal rates, the plateau of batch sizes. Pure."""

import math
from collections.abc import Sequence

import numpy as np

from welltuned.search._beliefs import Belief, BestRate
from welltuned.search._guide import EPSILON, View
from welltuned.search._options import Floats

MARGIN = 0.01  # relative; the protocol's equivalence margin on losses (docs/fairness.md)
LEVEL = (0.025, 0.975)  # of the intervals


def belief(view: View, ended: str) -> Belief:
    """Return the summary of one choice."""
    field, best, regret = view.field, view.best_place, view.regret_S
    configs = [candidate.config for candidate in field.choice.candidates]
    full = [one for one in view.mine if one.option < field.num_candidates and (one.high or one.nll is not None)]
    low, middle, high = (None, None, None)
    if best is not None:
        low, middle, high = (float(np.exp(np.quantile(view.draws_SA[:, best], q))) for q in (LEVEL[0], 0.5, LEVEL[1]))
    batch_sizes = sorted({config.batch_size for config in configs})
    by_batch = [_lowest(view, [config.batch_size == size for config in configs]) for size in batch_sizes]
    near = _plateau(by_batch)
    favourite = configs[view.favourite]
    return Belief(
        method=field.choice.method,
        problem=field.choice.problem,
        num_full=len(full),
        num_probes=sum(one.option >= field.num_candidates for one in view.mine),
        spent=view.spent,
        best=view.best,
        is_trained=best in view.trained,
        expected_nll=middle,
        low_nll=low,
        high_nll=high,
        favourite=favourite,
        probability_near_best=None if regret is None else float((regret < EPSILON).mean()),
        epsilon=EPSILON,
        expected_regret=None if regret is None else float(np.expm1(regret).mean()),
        best_rates=_best_rates(view),
        plateau=(batch_sizes[near[0]], batch_sizes[near[1]]),
        efficient_batch=batch_sizes[near[1]],
        margin=MARGIN,
        batch_edge=_edge(favourite.batch_size, batch_sizes),
        rank_edge=_edge(favourite.rank, sorted({config.rank for config in configs})),
        dropped_shares=view.dropped,
        prior_widened=view.posterior.valley.widened,
        valley_weight=view.posterior.weight,
        ended=ended,
    )


def _best_rates(view: View) -> tuple[BestRate, ...]:
    """Return where the optimum lies at every batch size and rank, for the settings that the favourite has."""
    field, points = view.field, view.field.points.take(range(view.field.num_candidates))
    configs = [candidate.config for candidate in field.choice.candidates]
    found: list[BestRate] = []
    same = points.setting == points.setting[view.favourite]
    for size, rank in sorted({(config.batch_size, config.rank) for config in configs}):
        here = np.array([config.batch_size == size and config.rank == rank for config in configs]) & same
        if here.any():
            places = np.flatnonzero(here)
            found.append(_best_rate(view, places[np.argsort(points.rate[places])], size, rank))
    return tuple(found)


def _best_rate(view: View, places: np.ndarray, batch_size: int, rank: int) -> BestRate:
    """Pool the valley's optimum with the plain process's best offered rates, as their weights are."""
    points = view.field.points.take(places)
    valley = view.posterior.optimum(points.take([0]))[:, 0]
    drawn = view.draws_SA[:, places]
    best = drawn.argmin(axis=1)
    rates = np.concatenate([valley, points.rate[best[len(valley) :]]])
    low, high = float((best == 0).mean()), float((best == len(places) - 1).mean())
    edge = "" if max(low, high) <= 0.5 or len(places) == 1 else "low" if low > high else "high"
    nll = float(np.exp(np.median(drawn[:, drawn.mean(0).argmin()])))
    return BestRate(batch_size, rank, float(rates.mean()), float(rates.std()), nll, edge)


def _lowest(view: View, members: Sequence[bool]) -> Floats:
    """Return the lowest expected log loss among some of the candidates."""
    return view.mean_A[: view.field.num_candidates][np.array(members)].min()


def _plateau(by_batch: Sequence[Floats]) -> tuple[int, int]:
    """Return the first and last batch size, by place, of the run around the best that is within the margin of it."""
    best = int(np.argmin(by_batch))
    near = [value - by_batch[best] <= math.log1p(MARGIN) for value in by_batch]
    low = high = best
    while low > 0 and near[low - 1]:
        low -= 1
    while high + 1 < len(near) and near[high + 1]:
        high += 1
    return low, high


def _edge(value: int, offered: Sequence[int]) -> str:
    ends = (value == offered[0], value == offered[-1])
    return {(True, True): "both", (True, False): "low", (False, True): "high", (False, False): ""}[ends]
