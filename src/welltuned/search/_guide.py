"""How a guided search spends its budget: the comb, the rounds, and when it ends. Pure.

Every choice is looked at by one posterior of the whole study and spends a budget of its own.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from welltuned import rng
from welltuned.records import Config, Result, Role, Trial
from welltuned.search import _gain, _options, _posterior, _prior, _valley
from welltuned.search._options import Field, Floats, Seen
from welltuned.search._posterior import Posterior
from welltuned.search._search import Plan
from welltuned.search._space import ROUNDING

EPSILON = 0.0025  # relative regret that is near enough: a quarter of the margin on losses (docs/fairness.md); assumed
SURE = 0.9  # probability of it that ends a choice
PRICE = 2e-4  # relative gain per run-equivalent below which nothing is bought; assumed
COMB = 5  # probes of the comb at most
COMB_SHARE = 0.1  # of the budget that the comb costs at most; assumed
COMB_FROM, COMB_TO = -0.7, 1.1  # standard deviations of the prior that the comb spans: high rates say more; assumed
FIRST = 0.6
GROWTH = 0.5
ROUND_SHARE = 1 / 8  # of the budget that one round costs at most, but for one full trial; assumed


@dataclass(frozen=True)
class View:
    """A choice as the posterior sees it. Options before `field.num_candidates` are the full trials."""

    field: Field
    posterior: Posterior
    mine: tuple[Seen, ...]
    draws_SA: Floats  # of the log loss of every option
    spent: float
    left: float  # run-equivalents
    dropped: tuple[float, ...]  # shares whose probes are not used

    @functools.cached_property
    def trained(self) -> tuple[int, ...]:
        """Return the candidates with a score of a full trial."""
        return tuple(sorted({one.option for one in self.mine if self._full(one.option) and one.nll is not None}))

    @functools.cached_property
    def mean_A(self) -> Floats:
        """Return the expected log loss of every option."""
        return self.draws_SA.mean(0)

    @property
    def favourite(self) -> int:
        """Return the candidate with the lowest expected loss."""
        return int(np.argmin(self.mean_A[: self.field.num_candidates]))

    @property
    def best_place(self) -> int | None:
        """Return the same among those trained in full; None where there is none."""
        return min(self.trained, key=lambda place: (self.mean_A[place], place)) if self.trained else None

    @property
    def best(self) -> Config | None:
        """Return the configuration of that candidate on the first selection seed."""
        return None if self.best_place is None else self.field.choice.candidates[self.best_place].config

    @functools.cached_property
    def regret_S(self) -> Floats | None:
        """Return draws of the best's log loss above that of the best candidate there is; None without a best."""
        if self.best_place is None:
            return None
        full = self.draws_SA[:, : self.field.num_candidates]
        return full[:, self.best_place] - full.min(axis=1)

    @property
    def is_sure(self) -> bool:
        """Say whether the best is near enough the best there is."""
        return self.regret_S is not None and float((self.regret_S < EPSILON).mean()) >= SURE

    def next_trial(self, option: int, asked: Sequence[Config]) -> Trial | None:
        """Return an option's trial on the first seed that was not tried or asked for; None where none is left."""
        tried = {one.config for one in self.mine if one.option == option}.union(asked)
        return next((trial for trial in self.field.trials(option) if trial.config not in tried), None)

    def _full(self, option: int) -> bool:
        return option < self.field.num_candidates


def look(plan: Plan, results: Sequence[Result]) -> tuple[View, ...]:
    """Return every choice as the results show it."""
    found = _options.fields(plan)
    known = _options.seen(found, results)
    centre_sd = max(_prior.centre_sd([candidate.config for candidate in field.choice.candidates]) for field in found)
    posterior = _posterior.fit(found, known, centre_sd, rng.stream(plan.seed, "search", "guided", "fit", len(known)))
    views: list[View] = []
    for place, field in enumerate(found):
        stream = rng.stream(plan.seed, "search", "guided", field.choice.name, len(known))
        spent = field.choice.spent(results)
        left = (np.inf if plan.budget is None else plan.budget) - spent
        mine = tuple(one for one in known if one.field == place)
        views.append(View(field, posterior, mine, posterior.draw(field.points, stream), spent, left, ()))
    return tuple(views)


def wanted(plan: Plan, view: View) -> list[Trial]:
    """Return what a choice trains next; nothing where it is at its end."""
    if not view.mine:
        return comb(plan, view)
    return _round(plan, view)


def comb(plan: Plan, view: View) -> list[Trial]:
    """Return a choice's first trials: short probes at rates spread over the prior, or full trials where none are offered.

    Choices begin at different batch sizes and ranks, so that together they show how these move the optimum.
    """
    field, points = view.field, view.field.points
    budget = view.left
    place = int(points.choice[0])
    shares = sorted({option.share for option in field.options})
    options = np.array([index for index, option in enumerate(field.options) if option.share == shares[0]])
    cost = max(field.options[index].cost for index in options)
    number = int(max(1, min(COMB, plan.width, COMB_SHARE * budget // cost)))
    reserve = max(option.cost for option in field.options)
    if shares[0] < 1 and number * cost + reserve > budget + ROUNDING:
        options, number = np.arange(field.num_candidates), 1
    sd = np.hypot(view.posterior.valley.prior.sd[len(_valley.SHAPE)], _valley.METHOD_SD)
    chosen: list[int] = []
    for tooth, z in enumerate(np.linspace(COMB_FROM, COMB_TO, number) if number > 1 else [0.0]):
        near = _of_kind(points.take(options), place + tooth)
        off = np.abs(points.rate[options] - points.expected[options] - z * sd)
        off = np.where(near & ~np.isin(options, chosen), off, np.inf)
        chosen.append(int(options[np.argmin(off)]))
    return [field.trials(option)[0] for option in dict.fromkeys(chosen)]


def _of_kind(points: _options.Points, turn: int) -> np.ndarray:
    """Say which points have the batch size and rank of this turn: the middle ones, alternately."""
    batches, ranks = np.unique(points.batch), np.unique(points.rank)
    batch = batches[(len(batches) - 1) // 2 + turn % 2] if len(batches) > 1 else batches[0]
    rank = ranks[(len(ranks) - 1) // 2 + turn // 2 % 2] if len(ranks) > 1 else ranks[0]
    near = (points.batch == batch) & (points.rank == rank)
    return near if near.any() else np.ones(len(points), dtype=bool)


def _round(plan: Plan, view: View) -> list[Trial]:
    """Return the trials that are worth most per cost, each as if those before it had come out as expected."""
    field, noise = view.field, view.posterior.noise
    if view.is_sure and view.favourite == view.best_place:
        return []
    costs = np.array([option.cost for option in field.options])
    stream = rng.stream(plan.seed, "search", "guided", "imagined", field.choice.name, len(view.mine))
    draws, left = view.draws_SA, view.left + ROUNDING
    room = _room(view)
    trials: list[Trial] = []
    asked: list[Config] = []
    closed = np.zeros(len(costs), dtype=bool)
    first = view.favourite if view.favourite not in view.trained else None
    while len(trials) < plan.width:
        spare = 0.0 if view.trained or any(trial.role is Role.SELECT for trial in trials) else costs[view.favourite]
        able = ~closed & (costs <= min(left, room)) & (_is_full(field) | (costs <= left - spare))
        if not able.any():
            break
        worth = np.where(able, _gain.gains(draws, field.num_candidates, noise) / costs, -1.0)
        option = first if first is not None and able[first] else int(np.argmax(worth))
        if option != first and worth[option] < PRICE:
            break
        first = None
        trial = view.next_trial(option, asked)
        if trial is None:
            closed[option] = True
            continue
        trials.append(trial)
        asked.append(trial.config)
        draws = _gain.imagined(draws, option, noise, stream)
        left, room = left - costs[option], room - costs[option]
    return trials


def _room(view: View) -> float:
    """Return what a round may cost: small while little is known, then as much as was spent, and never a large part."""
    full = max(option.cost for option in view.field.options)
    if view.spent < FIRST:
        return FIRST
    return min(max(full, view.spent * GROWTH), max(full, ROUND_SHARE * (view.left + view.spent)))+ROUNDING


def _is_full(field: Field) -> np.ndarray:
    return np.arange(len(field.options)) < field.num_candidates
