"""How a guided search spends its budget: a comb of probes, rounds of what is worth most, and the end. Pure.

Every choice has a budget of its own and is looked at by one posterior of the whole study.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from welltuned import rng
from welltuned.records import Config, Result, Trial
from welltuned.search import _box, _fidelity, _gain, _options, _posterior, _prior, _space, _valley
from welltuned.search._options import Field, Floats, Points, Seen
from welltuned.search._posterior import Posterior
from welltuned.search._search import Plan

EPSILON = 0.0025  # relative regret that is near enough: a quarter of the margin on losses (docs/fairness.md); assumed
SURE = 0.9  # probability of it that ends a choice
PRICE = 2e-4  # relative gain per run-equivalent below which nothing is bought; assumed
COMB = 5  # probes of the comb at most; assumed
COMB_SHARE = 0.4  # of the budget that the comb costs at most; assumed
COMB_FROM, COMB_TO = -1.2, 1.2  # standard deviations of the prior that the comb spans; assumed
FIRST = 0.6  # run-equivalents of a round while less than this was spent: probes only; assumed
GROWTH = 0.5  # of what was spent, which a later round costs at most (or what stands below); assumed
ROUND_SHARE = 1 / 8  # of the budget, likewise; assumed
# What a round may cost in any case, in full trials: often one of them and probes, which are a pack of their own.
# Assumed; on the development surface of abacus-small, rank 8, lora (30 replays) 3 instead of 1 gave regrets of 2.5, 5.5
# and 5.3 % instead of 4.2, 3.7 and 3.7 % at 4, 6 and 8 run-equivalents, in 4.3 to 4.8 rounds instead of 5.5 to 6.3.
ROUND_LEAST = 2
BOUGHT, SETTLED, WORTHLESS = "the budget is spent", "the best is near enough", "nothing offered is worth its cost"


@dataclass(frozen=True)
class View:
    """A choice as the posterior sees it. Options before `field.num_candidates` are the full trials."""

    field: Field
    posterior: Posterior
    mine: tuple[Seen, ...]
    draws_SA: Floats  # of the log loss of every option
    spent: float
    left: float  # run-equivalents
    dropped: tuple[float, ...]  # shares whose probes are not believed
    num_offered: int  # candidates with an offered learning rate, which are the first; the others lie beyond

    @functools.cached_property
    def trained(self) -> tuple[int, ...]:
        """Return the candidates with a score of a full trial."""
        scored = {one.option for one in self.mine if one.nll is not None}
        return tuple(sorted(option for option in scored if option < self.field.num_candidates))

    @functools.cached_property
    def mean_A(self) -> Floats:
        """Return the expected log loss of every option."""
        return self.draws_SA.mean(0)

    @property
    def full_SC(self) -> Floats:
        """Return draws of the log losses of the candidates trained in full."""
        return self.draws_SA[:, : self.field.num_candidates]

    @functools.cached_property
    def favourite(self) -> int:
        """Return the candidate with the lowest expected loss, among those offered and those beyond that were tried."""
        tried = {self.field.options[one.option].candidate for one in self.mine}
        able = np.arange(self.field.num_candidates) < self.num_offered
        able[list(tried)] = True
        return int(np.argmin(np.where(able, self.mean_A[: self.field.num_candidates], np.inf)))

    @functools.cached_property
    def best_place(self) -> int | None:
        """Return the candidate that is chosen as things stand; None where no trial has a score.

        It is the favourite, or one trained in full that is not expected to be worse by more than `EPSILON`.
        """
        if all(one.nll is None for one in self.mine):
            return None
        trained = min(self.trained, key=lambda place: (self.mean_A[place], place), default=self.favourite)
        return trained if self.mean_A[trained] - self.mean_A[self.favourite] <= EPSILON else self.favourite

    @property
    def best(self) -> Config | None:
        """Return the configuration of that candidate on the first selection seed."""
        return None if self.best_place is None else self.field.choice.candidates[self.best_place].config

    @functools.cached_property
    def regret_S(self) -> Floats | None:
        """Return draws of the best's log loss above that of the best candidate there is; None without a best."""
        if self.best_place is None:
            return None
        return self.full_SC[:, self.best_place] - self.full_SC.min(axis=1)

    @property
    def is_settled(self) -> bool:
        """Say whether the best was trained in full and is near enough the best there is."""
        near = self.regret_S is not None and float((self.regret_S < EPSILON).mean()) >= SURE
        return near and self.best_place in self.trained

    def next_trial(self, option: int, asked: Sequence[Config]) -> Trial | None:
        """Return an option's trial on the first seed that was not tried or asked for; None where none is left."""
        tried = {one.config for one in self.mine if one.option == option}.union(asked)
        return next((trial for trial in self.field.trials(option) if trial.config not in tried), None)


def look(plan: Plan, results: Sequence[Result]) -> tuple[View, ...]:
    """Return every choice as the results show it, with learning rates beyond those offered where these fall short."""
    results = sorted(results, key=lambda result: (result.trial_id, result.role))  # sums depend on their order
    offered = _space.choices(plan)
    configs = [candidate.config for choice in offered for candidate in choice.candidates]
    rule = _prior.rule(configs, plan.width_of, plan.sharpness_of)
    choices = [_box.with_tried(choice, results) if plan.reopen else choice for choice in offered]
    found = _options.fields(choices, rule)
    known = _options.seen(found, results)
    dropped = _fidelity.dropped(found, known)
    believed = [one for one in known if found[one.field].options[one.option].share not in dropped]
    posterior = _posterior.fit(found, believed, rule, rng.stream(plan.seed, "search", "guided", len(known)))

    views = _views(plan, offered, found, known, results, posterior, dropped)
    if not plan.reopen:
        return views
    wider = [
        _box.with_next(view.field.choice, view.full_SC, view.favourite) if view.mine else view.field.choice
        for view in views
    ]
    if wider == choices:
        return views
    found = _options.fields(wider, rule)
    return _views(plan, offered, found, _options.seen(found, results), results, posterior, dropped)


def _views(
    plan: Plan,
    offered: Sequence[_space.Choice],
    found: Sequence[Field],
    known: Sequence[Seen],
    results: Sequence[Result],
    posterior: Posterior,
    dropped: tuple[float, ...],
) -> tuple[View, ...]:
    views: list[View] = []
    for place, field in enumerate(found):
        stream = rng.stream(plan.seed, "search", "guided", len(known), field.choice.name)
        spent = field.choice.spent(results)
        left = (np.inf if plan.budget is None else plan.budget) - spent
        mine = tuple(one for one in known if one.field == place)
        draws = posterior.draw(field.points, stream)
        views.append(View(field, posterior, mine, draws, spent, left, dropped, len(offered[place].candidates)))
    return tuple(views)


def wanted(plan: Plan, view: View) -> tuple[list[Trial], str]:
    """Return what a choice trains next, or nothing and why it is at its end."""
    if not view.mine:
        return _comb(plan, view), ""
    if view.is_settled:
        return [], SETTLED
    full = max(option.cost for option in view.field.options)
    trials, end = _round(plan, view, _room(view))
    return (trials, end) if trials or _room(view) >= full else _round(plan, view, full)


def _comb(plan: Plan, view: View) -> list[Trial]:
    """Return a choice's first trials: short probes at rates spread over the prior, or one full trial.

    Choices begin at different batch sizes and ranks, so that together they show how these move the optimum.
    """
    field, points = view.field, view.field.points
    share = min(option.share for option in field.options)
    places = np.array([place for place, option in enumerate(field.options) if option.share == share])
    cost = max(option.cost for option in field.options if option.share == share)
    number = int(max(1, min(COMB, plan.width, COMB_SHARE * view.left // cost)))
    if share == 1:
        number = 1
    sd = float(np.hypot(view.posterior.valley.prior.sd[len(_valley.SHAPE)], _valley.METHOD_SD))
    chosen: list[int] = []
    for tooth, z in enumerate(np.linspace(COMB_FROM, COMB_TO, number) if number > 1 else [0.0]):
        off = np.abs(points.rate[places] - points.expected[places] - z * sd)
        off[~_of_turn(points.take(places), int(points.choice[0]) + tooth) | np.isin(places, chosen)] = np.inf
        if np.isfinite(off).any():
            chosen.append(int(places[np.argmin(off)]))
    return [field.trials(option)[0] for option in chosen]


def _of_turn(points: Points, turn: int) -> np.ndarray:
    """Say which points have the batch size and rank of this turn: the middle ones, alternately."""
    batches, ranks = np.unique(points.batch), np.unique(points.rank)
    batch = batches[min(len(batches) - 1, (len(batches) - 1) // 2 + turn % 2)]
    rank = ranks[min(len(ranks) - 1, (len(ranks) - 1) // 2 + turn // 2 % 2)]
    near = (points.batch == batch) & (points.rank == rank)
    return near if near.any() else np.ones(len(points), dtype=bool)


def _round(plan: Plan, view: View, room: float) -> tuple[list[Trial], str]:
    """Return the trials that are worth most per cost, each as if those before it had come out as expected.

    A favourite that was not trained in full goes first, as soon as a round may cost so much.
    """
    field, noise = view.field, view.posterior.noise
    costs = np.array([option.cost for option in field.options])
    open_ = np.array([option.share not in view.dropped for option in field.options])
    stream = rng.stream(plan.seed, "search", "guided", len(view.mine), field.choice.name, "imagined")
    draws, left, room = view.draws_SA, view.left + _space.ROUNDING, room + _space.ROUNDING
    first = view.favourite if view.favourite not in view.trained else None
    trials: list[Trial] = []
    end = BOUGHT
    while len(trials) < plan.width:
        able = open_ & (costs <= min(left, room))
        if not able.any():
            break
        worth = np.where(able, _gain.gains(draws, field.num_candidates, noise) / costs, -1.0)
        option = first if first is not None and able[first] else int(np.argmax(worth))
        if option != first and worth[option] < PRICE:
            end = WORTHLESS
            break
        first = None if option == first else first
        trial = view.next_trial(option, [trial.config for trial in trials])
        if trial is None:
            open_[option] = False
            continue
        trials.append(trial)
        draws = _gain.imagined(draws, option, noise, stream)
        left, room = left - costs[option], room - costs[option]
    return trials, "" if trials else end


def _room(view: View) -> float:
    """Return what a round may cost: little while little is known, more the more was spent."""
    if view.spent < FIRST and min(option.share for option in view.field.options) < 1:
        return FIRST
    full = max(option.cost for option in view.field.options)
    return max(ROUND_LEAST * full, min(GROWTH * view.spent, ROUND_SHARE * (view.left + view.spent)))
