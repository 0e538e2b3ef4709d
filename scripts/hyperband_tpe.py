"""Hyperband with TPE, a rival of the replays: brackets of successive halving whose candidates TPE suggests.

Falkner, Klein and Hutter 2018 (BOHB, arXiv 1807.01774) with Optuna's TPE: a bracket's candidates come from a model of
the highest rung with at least d + 2 results, d being the number of axes, and at random before there are so many.
Brackets start at the lowest rung, then the next, and so on, and again (Li et al. 2018, arXiv 1603.06560). A bracket
that the budget does not carry to the top is made smaller, or starts higher. BOHB's third of random candidates is left
out, which on these surfaces can only help it. Rungs are probes of their own courses, as of all searches here.
"""

import functools
import itertools
import math
import warnings
from collections.abc import Iterator, Sequence

import optuna

from welltuned import rng
from welltuned.records import Proposal, Result, Trial
from welltuned.search import _axes, _final, _rungs, _space
from welltuned.search._search import Plan, Search
from welltuned.search.optuna import REPETITIONS, _distributions
from welltuned.search.uniform import shuffled

Losses = tuple[tuple[int, float], ...]  # of candidates, by their places


def propose(plan: Plan, results: Sequence[Result]) -> Proposal:
    """Want bracket after bracket, then the reruns of each choice's best, then their grading; then nothing."""
    return _final.conduct(plan, results, rounds)


def rounds(plan: Plan, choice: _space.Choice, done: _final.Done) -> Iterator[Sequence[Trial]]:
    """Yield the trials of every rung of every bracket that is paid for."""
    left = (math.inf if plan.budget is None else plan.budget) + _space.ROUNDING
    ladder = _rungs.ladder(choice)
    dearest = [max(ladder.cost(one, rung) for one in choice.candidates) for rung in range(ladder.top + 1)]
    waiting = [choice.candidates.index(one) for one in shuffled(plan, choice, "hyperband_tpe")]
    known: dict[int, dict[int, float]] = {rung: {} for rung in range(ladder.top + 1)}
    box = _axes.box(choice)
    for bracket in itertools.count():
        start, number = _size(ladder.top, bracket % (ladder.top + 1), dearest, left, len(waiting))
        if not number:
            return
        seed = rng.seed_of(plan.seed, "search", "hyperband_tpe", choice.name, bracket) % 2**32
        places = _suggested(box, _told(known, len(box.axes) + 2), tuple(waiting), number, seed)
        waiting = [place for place in waiting if place not in places]
        members = [choice.candidates[place] for place in places]
        for rung in range(start, ladder.top + 1):
            yield list(dict.fromkeys(trial for one in members for trial in ladder.trials(one, rung)))
            left -= sum(ladder.cost(one, rung) for one in members)
            for one in members:
                if (loss := _loss(ladder, one, rung, done)) is not None:
                    known[rung][choice.candidates.index(one)] = loss
            members = _rungs.best(ladder, members, rung, done)


def _size(top: int, first: int, dearest: Sequence[float], left: float, most: int) -> tuple[int, int]:
    """Return where a bracket starts and with how many candidates: as Hyperband wants, or what the budget carries."""
    for start in range(first, top + 1):
        wanted = math.ceil((top + 1) / (top - start + 1) * _rungs.REDUCTION ** (top - start))
        for number in range(min(wanted, most), 0 if start == top else 1, -1):
            if _cost(number, dearest[start:]) <= left:
                return start, number
    return top, 0


def _cost(number: int, dearest: Sequence[float]) -> float:
    cost = 0.0
    for rung_cost in dearest:
        cost += number * rung_cost
        number = _rungs.num_kept(number)
    return cost


def _loss(ladder: _rungs.Ladder, one: _space.Candidate, rung: int, done: _final.Done) -> float | None:
    if rung == ladder.top:
        return _final.mean_score(one, done)
    return _final.score_nats(done[_final.key_of(ladder.trials(one, rung)[0])])


def _told(known: dict[int, dict[int, float]], fewest: int) -> Losses:
    """Return the results of the highest rung that has enough of them."""
    rungs = [rung for rung in sorted(known, reverse=True) if len(known[rung]) >= fewest]
    return tuple(known[rungs[0]].items()) if rungs else ()


@functools.lru_cache(maxsize=1 << 12)  # a search is asked again and again, and asks Optuna once
def _suggested(box: _axes.Box, told: Losses, waiting: tuple[int, ...], number: int, seed: int) -> tuple[int, ...]:
    """Return the places of a bracket's candidates among those that wait; in their order where nothing is told."""
    if not told:
        return waiting[:number]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that options of the sampler are experimental
        study = _study(box, told, seed)
        found: list[int] = []
        while len(found) < number:
            found.append(_asked(study, box, [place for place in waiting if place not in found]))
    return tuple(found)


def _asked(study: optuna.Study, box: _axes.Box, free: Sequence[int]) -> int:
    """Return a place that TPE suggests, or the free one that is nearest to its last suggestion."""
    numbers = {where: place for place, where in enumerate(box.places)}
    wanted: tuple[int, ...] = ()
    for _ in range(REPETITIONS):
        trial = study.ask(_distributions(box))
        wanted = tuple(trial.params[axis.field] for axis in box.axes)
        if numbers.get(wanted) in free:
            return numbers[wanted]
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
    taken = set(range(len(box.places))) - set(free)
    return _axes.nearest(box.points(), box.point(wanted), taken)


def _study(box: _axes.Box, told: Losses, seed: int) -> optuna.Study:
    """Return a study that knows these results."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        sampler=optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True, n_startup_trials=1)
    )
    for place, loss in told:
        params = {axis.field: at for axis, at in zip(box.axes, box.places[place], strict=True)}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=_distributions(box), value=loss))
    return study


SEARCH = Search(
    summary="brackets of successive halving whose candidates TPE suggests; the best is rerun and graded",
    propose=propose,
)
