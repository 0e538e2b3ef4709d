"""Tune one method on one model and data: write the study that does it, run it, and say what it found.

The study is a file like any other, beside its results, so that it can be read, planned, changed and run again. It is
written once: the same request goes on with it, another request in the same folder is refused. Test data is never read:
whoever wants its verdict has it unspent.
"""

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from welltuned import plan as plans
from welltuned import transfer
from welltuned.errors import InputError, StoreError, problem
from welltuned.plan import Plan
from welltuned.records import Config, Result, Role, Status
from welltuned.search import guided
from welltuned.search._beliefs import Belief
from welltuned.spec import Spec
from welltuned.study import loop
from welltuned.study.loop import Session
from welltuned.study.options import Observer, Options, silent
from welltuned.study.speed import speed
from welltuned.study.surveys import preview

STUDY, REQUEST, RUNS = "study.toml", "request.json", "study"
RANKS = (4, 16, 64)  # offered where none is named, as far as half of the smallest site's size; assumed
FIRST_BATCH, LAST_BATCH = 4, 256  # offered batch sizes are the powers of two between; assumed
STEPS_PER_OCTAVE = 2  # of the offered learning rates: neighbours differ by 1.41
HALF_WIDTH_SD = 2.5  # of the prior, on either side of its centre, that the offered learning rates reach; assumed
LEAST_OCTAVES = 3.0  # on either side at least, since a narrow prior may be wrong; assumed
LEAST_RUNS = 3.0  # two full trials and one rerun: less cannot choose
RERUNS_FROM = 8.0  # run-equivalents from which on two fresh seeds confirm the choice, one below; assumed
SIGNIFICANT = 3  # digits of an offered learning rate


@dataclass(frozen=True)
class Budget:
    """What tuning may cost in all, the reruns included: exactly one of the three is given."""

    runs: float | None = None  # full trials
    seconds: float | None = None
    tokens: float | None = None

    def text(self) -> str:
        """Write it as it is given on the command line."""
        if self.runs is not None:
            return f"{self.runs:g}x"
        return f"{self.seconds:g}s" if self.seconds is not None else f"{self.tokens:g} tokens"


@dataclass(frozen=True)
class Request:
    """What is to be tuned; what is None is chosen."""

    base: str
    task: str
    data_train: tuple[str, ...]
    num_train: int
    num_validation: int
    num_test: int  # rows that are kept away from tuning
    method: str = "lora"
    ranks: tuple[int, ...] | None = None
    dtype: str = "float32"
    max_length: int = 256
    budget: Budget = dataclasses.field(default_factory=lambda: Budget(runs=16.0))


@dataclass(frozen=True)
class Tuned:
    """What tuning found. Losses are validation NLL, nats per target token."""

    belief: Belief
    config: Config  # the choice, on the first selection seed
    base_nll: float | None  # of the bare base
    reruns: tuple[Result, ...]  # of the choice on fresh seeds
    num_runs: float  # run-equivalents that were spent in all
    budget_runs: float


def prepare(request: Request, folder: Path, options: Options, observe: Observer = silent) -> tuple[Spec, Plan]:
    """Write the study of a request into the folder, or read the one that is there; return it with its plan."""
    file, memory = folder / STUDY, folder / REQUEST
    written = json.dumps(dataclasses.asdict(request), indent=2) + "\n"
    if file.exists():
        then = memory.read_text(encoding="utf-8") if memory.exists() else ""
        if then != written:
            changed = _changed(then, written)
            raise InputError(
                problem(
                    "tune", f"another request than {folder} began with ({changed})", "the same", "name another --folder"
                )
            )
        spec = Spec.load(file)
        return spec, preview(spec, options, observe)
    spec = compose(request, options, observe)
    plan = preview(spec, options, observe)
    folder.mkdir(parents=True, exist_ok=True)
    memory.write_text(written, encoding="utf-8")
    file.write_text(spec.text(), encoding="utf-8")
    return spec, plan


def compose(request: Request, options: Options, observe: Observer = silent) -> Spec:
    """Return the study that tunes what is requested."""
    batch_sizes = _batch_sizes(request)
    draft = preview(_spec(request, (1e-3,), request.ranks or (1,), batch_sizes[:1], 1.0, 0), options, observe)
    config = draft.arms[0].configs[0]
    survey = draft.survey_of(config)
    ranks = _ranks(request, min(min(site.num_out, site.num_in) for site in survey.sites))
    rates = learning_rates(survey.hidden_size, request.method, ranks, batch_sizes, request.num_train)
    runs = _runs(request, draft, options)
    fresh = 2 if runs >= RERUNS_FROM else 1
    return _spec(request, rates, ranks, batch_sizes, runs - fresh, fresh)


def learning_rates(
    width: int, method: str, ranks: Sequence[int], batch_sizes: Sequence[int], num_samples: int
) -> tuple[float, ...]:
    """Return the offered learning rates: around the prior's centres at the corners of the box, evenly spaced."""
    priors = [
        transfer.prior(width, method, rank, "r", batch_size, num_samples)
        for rank in (ranks[0], ranks[-1])
        for batch_size in (batch_sizes[0], batch_sizes[-1])
    ]
    reach = [max(LEAST_OCTAVES, HALF_WIDTH_SD * prior.sd_octaves) for prior in priors]
    low = min(prior.centre_log2 - half for prior, half in zip(priors, reach, strict=True))
    high = max(prior.centre_log2 + half for prior, half in zip(priors, reach, strict=True))
    places = range(math.floor(low * STEPS_PER_OCTAVE), math.ceil(high * STEPS_PER_OCTAVE) + 1)
    return tuple(float(f"{2.0 ** (place / STEPS_PER_OCTAVE):.{SIGNIFICANT}g}") for place in places)


def run(spec: Spec, folder: Path, budget_runs: float, options: Options, observe: Observer = silent) -> Tuned:
    """Run the study of `prepare`, or go on with it, and return what it found."""
    beliefs: list[Belief] = []

    def work(session: Session) -> None:
        loop.train(session, grade=False)
        beliefs.extend(guided.beliefs(session.plan, session.store.results()))

    study = loop.within(spec, folder / RUNS, observe, options, work)
    return _found(study.results(), beliefs[0], budget_runs)


def _found(results: Sequence[Result], belief: Belief, budget_runs: float) -> Tuned:
    if belief.best is None:
        counts = ", ".join(f"{sum(r.status is status for r in results)} {status.value}" for status in Status)
        raise StoreError(f"tune: no full trial has a loss ({counts}); give a larger --budget in another --folder")
    reruns = tuple(result for result in results if result.role is Role.CONFIRM)
    bases = [result.base_validation_nll for result in results if result.base_validation_nll is not None]
    spent = belief.spent + len(reruns)
    return Tuned(belief, belief.best, bases[0] if bases else None, reruns, spent, budget_runs)


def total_runs(spec: Spec) -> float:
    """Return what a study of `prepare` may cost in all, in run-equivalents."""
    return (spec.search.budget or 0.0) + spec.search.fresh_seeds


def _spec(
    request: Request,
    rates: Sequence[float],
    ranks: Sequence[int],
    batch_sizes: Sequence[int],
    budget: float,
    fresh_seeds: int,
) -> Spec:
    tree: dict[str, Any] = {
        "name": "tune",
        "model": {"base": request.base, "dtype": request.dtype},
        "task": {
            "task": request.task,
            "data_train": list(request.data_train),
            "num_train": request.num_train,
            "num_validation": request.num_validation,
            "num_test": request.num_test,
            "max_length": request.max_length,
        },
        "train": {"method": request.method},
        "axes": {"batch_size": list(batch_sizes), "learning_rate": list(rates)},
        "search": {"search": "guided", "budget": round(budget, 2), "fresh_seeds": fresh_seeds},
    }
    if len(ranks) > 1:
        tree["axes"]["rank"] = list(ranks)
    else:
        tree["train"]["rank"] = ranks[0]
    return Spec.model_validate(tree, context="load")


def _batch_sizes(request: Request) -> tuple[int, ...]:
    """Return the offered batch sizes: those with enough optimizer steps for the batch size to matter."""
    most = min(LAST_BATCH, request.num_train // plans.FEW_STEPS)
    sizes = tuple(2**power for power in range(int(math.log2(FIRST_BATCH)), int(math.log2(LAST_BATCH)) + 1))
    offered = tuple(size for size in sizes if size <= most)
    if not offered:
        least = FIRST_BATCH * plans.FEW_STEPS
        raise InputError(
            problem("--num-train", request.num_train, f"at least {least} rows", "add data: tuning needs steps")
        )
    return offered


def _ranks(request: Request, full_rank: int) -> tuple[int, ...]:
    if request.ranks is not None:
        return request.ranks
    return tuple(rank for rank in RANKS if rank <= full_rank // 2) or (max(1, full_rank // 2),)


def _runs(request: Request, draft: Plan, options: Options) -> float:
    """Return the budget in run-equivalents of the draft's one trial."""
    budget = request.budget
    config = draft.arms[0].configs[0]
    if budget.runs is not None:
        runs = budget.runs
    elif budget.tokens is not None:
        runs = budget.tokens / _tokens_read(config, draft)
    else:
        assert budget.seconds is not None
        cost = plans.summary(draft, options.new_memory_bytes(), {config.dtype: speed(options, config.dtype)}).cost
        runs = budget.seconds / (cost.seconds / cost.num_trials)
    if runs < LEAST_RUNS:
        expected = f"at least {LEAST_RUNS:g} full trials' worth, two to choose from and one rerun"
        got = f"{budget.text()}, which is {runs:.2g} full trials"
        raise InputError(problem("--budget", got, expected, "raise it, or lower --num-train"))
    return runs


def _tokens_read(config: Config, draft: Plan) -> float:
    survey = draft.survey_of(config)
    return survey.mean_tokens * (config.num_train + config.num_evaluations * config.num_validation)


def _changed(then: str, now: str) -> str:
    """Name what differs between two requests."""
    if not then:
        return f"{REQUEST} is missing"
    before, after = json.loads(then), json.loads(now)
    names = [name for name in after if before.get(name) != after[name]]
    return ", ".join(f"{name}: {after[name]} instead of {before.get(name)}" for name in names)
