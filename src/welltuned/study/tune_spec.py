"""The studies that tuning writes: what they offer to the guided search, and how large its budget is in full trials."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from welltuned import plan as plans
from welltuned import plan_cost, plugins, transfer
from welltuned.costs import flops
from welltuned.errors import InputError, problem
from welltuned.plan import Plan
from welltuned.records import Config, Survey
from welltuned.search._space import rows_read
from welltuned.spec import Spec
from welltuned.study.options import Observer, Options
from welltuned.study.speed import own_rate
from welltuned.study.surveys import look
from welltuned.transfer.proxy import Transferred

RANKS = (4, 16, 64)  # offered where none is named, as far as half of the smallest site's size; assumed
FIRST_BATCH, LAST_BATCH = 4, 256  # offered batch sizes are the powers of two between; assumed
STEPS_PER_OCTAVE = 2  # of the offered learning rates: neighbours differ by 1.41
HALF_WIDTH_SD = 2.5  # of the prior, on either side of its centre, that the offered learning rates reach; assumed
LEAST_OCTAVES = 3.0  # on either side at least, since a narrow prior may be wrong; assumed
BEYOND = 1.0  # octaves offered beyond either end of a transferred learning rate's interval; assumed
FEWEST_ROWS = FIRST_BATCH * plans.FEW_STEPS  # that train: the smallest batch size takes its least number of steps
LEAST_RUNS = 3.0  # two full trials and one rerun: less cannot choose
LEAST_AFTER_PROXY = 2.0  # one full trial, where the proxy expects the best, and one rerun
RERUNS_FROM = 8.0  # run-equivalents from which on two fresh seeds confirm the choice, one below; assumed
PROXY_RUNS = 16.0  # full trials of the proxy that its tuning costs at the most; assumed
PROXY_SHARE = 0.5  # of the whole budget, at the most; assumed
VALIDATION_PART = 8  # training rows for each validation row at the most: a trial is to train, not to validate; assumed
SIGNIFICANT = 3  # digits of an offered learning rate


@dataclass(frozen=True)
class Budget:
    """What tuning may cost in all, the reruns included: exactly one of the three is given."""

    runs: float | None = None  # full trials
    seconds: float | None = None
    tokens: float | None = None

    def text(self) -> str:
        """Write it for a message."""
        if self.runs is not None:
            return f"{self.runs:g}x"
        return f"{self.seconds:g} s" if self.seconds is not None else f"{self.tokens:g} tokens"


@dataclass(frozen=True)
class Request:
    """What is to be tuned; what is None is chosen."""

    base: str
    task: str
    data_train: tuple[str, ...]
    num_train: int
    num_validation: int
    num_test: int  # rows that are kept away from tuning
    budget: Budget
    method: str = "lora"
    ranks: tuple[int, ...] | None = None
    dtype: str = "float32"
    max_length: int = 256
    proxy: str | None = None  # a smaller base, tuned first


@dataclass(frozen=True)
class Draft:
    """One full trial of a base, planned: what sizes and costs are taken from."""

    plan: Plan
    config: Config
    survey: Survey

    @property
    def full_rank(self) -> int:
        """Return the largest rank that every site can have."""
        return _full_rank(self.survey)

    def operations(self) -> float:
        """Return the floating-point operations of the trial and its validations."""
        work = flops.work(self.config, self.survey)
        return work.train_flops + work.validation_flops


def draft(request: Request, base: str, options: Options, observe: Observer) -> Draft:
    """Plan one full trial on a base."""
    sizes = batch_sizes(request)[:1]
    surveys = look(_spec(request, base, (1e-3,), (1,), sizes, 1.0, 0), options, observe)  # the same at every rank
    (survey,) = surveys.values()
    rank = min(_offered(request, survey))
    plan = plans.make(_spec(request, base, (1e-3,), (rank,), sizes, 1.0, 0), surveys)
    config = plan.arms[0].configs[0]
    return Draft(plan, config, plan.survey_of(config))


def direct(request: Request, target: Draft, options: Options, observe: Observer) -> Spec:
    """Return the study that tunes the target itself, and nothing before it."""
    sizes, ranks = batch_sizes(request), offered_ranks(request, target)
    rates = rates_of_prior(target.survey.hidden_size, request.method, ranks, sizes, request.num_train)
    runs = total_runs(request, target, options, observe)
    _check_runs(request, runs, LEAST_RUNS, "two to choose from and a rerun")
    fresh = _fresh_seeds(runs)
    return _spec(request, request.base, rates, ranks, sizes, runs - fresh, fresh)


def of_proxy(request: Request, target: Draft, proxy: Draft, options: Options, observe: Observer) -> Spec:
    """Return the study that tunes the proxy, at the lowest of the target's ranks, on the same data."""
    assert request.proxy is not None
    sizes, ranks = batch_sizes(request), (min(*offered_ranks(request, target), proxy.full_rank),)
    rates = rates_of_prior(proxy.survey.hidden_size, request.method, ranks, sizes, request.num_train)
    share = proxy_cost(target, proxy)
    total = total_runs(request, target, options, observe)
    _check_runs(request, total, LEAST_RUNS, "two to choose from and a rerun")
    runs = min(PROXY_RUNS, PROXY_SHARE * total / share)
    if runs < LEAST_RUNS:
        expected = f"a base whose full trials cost a small part of {request.base}'s, and this one's cost {share:.0%}"
        raise InputError(problem("--proxy", request.proxy, expected, "name a smaller one, or raise --budget"))
    least = min(LEAST_AFTER_PROXY / (1 - PROXY_SHARE), LEAST_AFTER_PROXY + PROXY_RUNS * share)
    _check_runs(request, total, least, f"the proxy's, and {LEAST_AFTER_PROXY:g} of {request.base}, one of them a rerun")
    return _spec(request, request.proxy, rates, ranks, sizes, runs, 0)


def after_proxy(request: Request, target: Draft, moved: Transferred, runs: float) -> Spec:
    """Return the target's study after its proxy: the proxy's batch size, learning rates around where they moved."""
    low, high = (math.log2(rate) for rate in (moved.low, moved.high))
    rates = _grid(low - BEYOND, high + BEYOND)
    fresh = _fresh_seeds(runs)
    ranks = offered_ranks(request, target)
    return _spec(request, request.base, rates, ranks, (moved.setting.batch_size,), runs - fresh, fresh)


def proxy_cost(target: Draft, proxy: Draft) -> float:
    """Return the operations of a full trial of the proxy over those of the target's."""
    return proxy.operations() / target.operations()


def rates_of_prior(
    width: int, method: str, ranks: Sequence[int], sizes: Sequence[int], num_samples: int
) -> tuple[float, ...]:
    """Return the offered learning rates: around the prior's centres at the corners of the box, evenly spaced."""
    priors = [
        transfer.prior(width, method, rank, "r", batch_size, num_samples)
        for rank in (ranks[0], ranks[-1])
        for batch_size in (sizes[0], sizes[-1])
    ]
    reach = [max(LEAST_OCTAVES, HALF_WIDTH_SD * prior.sd_octaves) for prior in priors]
    low = min(prior.centre_log2 - half for prior, half in zip(priors, reach, strict=True))
    high = max(prior.centre_log2 + half for prior, half in zip(priors, reach, strict=True))
    return _grid(low, high)


def batch_sizes(request: Request) -> tuple[int, ...]:
    """Return the offered batch sizes: those with enough optimizer steps for the batch size to matter."""
    most = min(LAST_BATCH, request.num_train // plans.FEW_STEPS)
    sizes = (2**power for power in range(round(math.log2(FIRST_BATCH)), round(math.log2(LAST_BATCH)) + 1))
    offered = tuple(size for size in sizes if size <= most)
    if not offered:
        expected = f"at least {FEWEST_ROWS} rows"
        raise InputError(problem("--num-train", request.num_train, expected, "add data: tuning needs optimizer steps"))
    return offered


def offered_ranks(request: Request, target: Draft) -> tuple[int, ...]:
    """Return the ranks of the request, else those that are low ranks for every site and that the method accepts."""
    return _offered(request, target.survey)


def _offered(request: Request, survey: Survey) -> tuple[int, ...]:
    if request.ranks is not None:
        return request.ranks
    misfit = plugins.load("methods", request.method).misfit
    half = max(1, _full_rank(survey) // 2)

    def fits(rank: int) -> bool:
        return rank <= half and not any(misfit(site.num_out, site.num_in, rank) for site in survey.sites)

    # Without a usual rank the largest that fits; where none does, the plan of rank 1 says why.
    return tuple(filter(fits, RANKS)) or (next(filter(fits, range(half, 0, -1)), 1),)


def _full_rank(survey: Survey) -> int:
    return min(min(site.num_out, site.num_in) for site in survey.sites)


def total_runs(request: Request, target: Draft, options: Options, observe: Observer) -> float:
    """Return the whole budget in full trials of the target; one in time needs a few of its trials timed."""
    budget, config = request.budget, target.config
    if budget.runs is not None:
        runs = budget.runs
    elif budget.tokens is not None:
        runs = budget.tokens / (target.survey.mean_tokens * rows_read(config))
    else:
        assert budget.seconds is not None
        rate = own_rate(config, target.survey, options, observe)
        cost = plan_cost.summary(target.plan, options.new_memory_bytes(), rate, options.device).cost
        runs = budget.seconds / cost.seconds
    return runs


def _check_runs(request: Request, runs: float, least: float, what_for: str) -> None:
    if runs < least:
        expected = f"at least {least:.3g} full trials' worth: {what_for}"
        got = f"{request.budget.text()}, which is {runs:.2g} full trials"
        advice = "raise it, or lower --num-train" + (", or leave out --proxy" if request.proxy else "")
        raise InputError(problem("--budget", got, expected, advice))


def _fresh_seeds(runs: float) -> int:
    return 2 if runs >= RERUNS_FROM else 1


def _grid(low: float, high: float) -> tuple[float, ...]:
    """Return learning rates from 2^low to 2^high, evenly in the logarithm."""
    places = range(math.floor(low * STEPS_PER_OCTAVE), math.ceil(high * STEPS_PER_OCTAVE) + 1)
    return tuple(float(f"{2.0 ** (place / STEPS_PER_OCTAVE):.{SIGNIFICANT}g}") for place in places)


def _spec(
    request: Request,
    base: str,
    rates: Sequence[float],
    ranks: Sequence[int],
    sizes: Sequence[int],
    budget: float,
    fresh_seeds: int,
) -> Spec:
    """Return a study of the request on a base, with what is offered and the budget to choose from it."""
    data: dict[str, Any] = {"data_train": list(request.data_train)} if request.data_train else {}
    rows = {name: getattr(request, name) for name in ("num_train", "num_validation", "num_test", "max_length")}
    axes: dict[str, Any] = {"batch_size": list(sizes), "learning_rate": list(rates)}
    tree: dict[str, Any] = {
        "name": "tune",
        "model": {"base": base, "dtype": request.dtype},
        "task": {"task": request.task, **data, **rows},
        "train": {"method": request.method, "num_evaluations": 1, **({} if len(ranks) > 1 else {"rank": ranks[0]})},
        "axes": axes | ({"rank": list(ranks)} if len(ranks) > 1 else {}),
        "search": {"search": "guided", "budget": round(budget, 2), "fresh_seeds": fresh_seeds},
    }
    return Spec.model_validate(tree, context="load")
