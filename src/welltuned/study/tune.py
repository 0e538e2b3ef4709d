"""Tune one method on one model and data: write the study that does it, run it, and say what it found.

A study is a file like any other, beside its results, so that it can be read, planned, changed and run again. It is
written once: the same request goes on with it, another request in the same folder is refused. With a proxy there are
two, and the target's is written when the proxy's is done. Test data is never read: whoever wants its verdict has it
unspent.
"""

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from welltuned.errors import InputError, StoreError, problem
from welltuned.plan import Plan
from welltuned.records import Config, Result, Role
from welltuned.search import guided
from welltuned.search._beliefs import Belief, BestRate
from welltuned.spec import Spec
from welltuned.study import loop, tune_spec
from welltuned.study.loop import Session
from welltuned.study.options import Note, Observer, Options, silent
from welltuned.study.surveys import preview
from welltuned.study.tune_spec import Request
from welltuned.transfer import proxy as proxies
from welltuned.transfer.proxy import Found, Transferred
from welltuned.transfer.setting import Setting, check

REQUEST = "request.json"
PROXY, TARGET = "proxy", "study"  # the files' names, and their studies' folders
NORMAL_90 = 1.645  # half width of a normal's 90 % interval, in standard deviations


@dataclass(frozen=True)
class Stage:
    """A study of a tuning, ready to run."""

    name: str  # PROXY | TARGET
    file: Path
    spec: Spec
    plan: Plan

    @property
    def folder(self) -> Path:
        """Return where its trials are kept."""
        return self.file.with_suffix("")


@dataclass(frozen=True)
class Tuned:
    """What tuning found. Losses are validation NLL, nats per target token."""

    belief: Belief
    config: Config  # the choice, on the first selection seed
    base_nll: float | None  # of the bare base
    reruns: tuple[Result, ...]  # of the choice on fresh seeds
    num_runs: float  # full trials that were spent in all, the proxy's counted by their operations
    budget_runs: float
    moved: Transferred | None = None  # from the proxy's optimum

    @property
    def best_rate(self) -> BestRate | None:
        """Return what is known of the learning rate at the choice's own batch size and rank."""
        place = (self.config.batch_size, self.config.rank)
        return next((one for one in self.belief.best_rates if (one.batch_size, one.rank) == place), None)


def prepare(request: Request, folder: Path, options: Options, observe: Observer = silent) -> Stage:
    """Write the first study of a request into the folder, or read the one that is there."""
    name = TARGET if request.proxy is None else PROXY
    file = folder / f"{name}.toml"
    written = json.dumps(dataclasses.asdict(request), indent=2) + "\n"
    if file.exists() or (folder / REQUEST).exists():  # the latter without the former: a request that had no proxy
        _check_same(folder, written)
    if file.exists():
        return _opened(name, file, Spec.load(file), options, observe)
    target = tune_spec.draft(request, request.base, options, observe)
    if request.proxy is None:
        spec = tune_spec.direct(request, target, options, observe)
    else:
        smaller = tune_spec.draft(request, request.proxy, options, observe)
        _check_movable(request, target, smaller)
        spec = tune_spec.of_proxy(request, target, smaller, options, observe)
    stage = _opened(name, file, spec, options, observe)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / REQUEST).write_text(written, encoding="utf-8")
    file.write_text(spec.text(), encoding="utf-8")
    return stage


def run(request: Request, first: Stage, options: Options, observe: Observer = silent) -> Tuned:
    """Run the stages that are left, and return what the last one found."""
    if first.name == TARGET:
        return _tuned(first, *_run(first, options, observe), 0.0, None)
    belief, _ = _run(first, options, observe)
    target = tune_spec.draft(request, request.base, options, observe)
    smaller = tune_spec.draft(request, first.spec.model.base or "", options, observe)
    there = _setting(target, min(tune_spec.offered_ranks(request, target)))  # the search goes on to the other ranks
    moved = proxies.transfer(_optimum(first, belief), there)
    cost = belief.spent * tune_spec.proxy_cost(target, smaller)
    observe(Note(f"The proxy's best batch size is {moved.setting.batch_size}; {_moves(moved)}"))
    file = first.file.with_name(f"{TARGET}.toml")
    if not file.exists():
        # A time was turned into trials anew: what the proxy found is used, even where less is left than was expected.
        left = max(tune_spec.total_runs(request, target, options, observe) - cost, tune_spec.LEAST_AFTER_PROXY)
        spec = tune_spec.after_proxy(request, target, moved, left)
        file.write_text(spec.text(), encoding="utf-8")
    second = _opened(TARGET, file, Spec.load(file), options, observe)
    return _tuned(second, *_run(second, options, observe), cost, moved)


def budget_of(spec: Spec) -> float:
    """Return what a stage may cost, in its own full trials."""
    return (spec.search.budget or 0.0) + spec.search.fresh_seeds


def _opened(name: str, file: Path, spec: Spec, options: Options, observe: Observer) -> Stage:
    return Stage(name, file, spec, preview(spec, options, observe))


def _run(stage: Stage, options: Options, observe: Observer) -> tuple[Belief, tuple[Result, ...]]:
    """Run a stage's study to the end of its training; return what it makes one believe, and its results."""
    beliefs: list[Belief] = []

    def work(session: Session) -> None:
        loop.train(session, grade=False)
        beliefs.extend(guided.beliefs(session.plan, session.store.results()))

    results = loop.within(stage.spec, stage.folder, observe, options, work).results()
    if beliefs[0].best is None:
        counts = Counter(result.status.value for result in results if result.role is not Role.PROBE)
        got = ", ".join(f"{number} {status}" for status, number in sorted(counts.items())) or "none"
        raise StoreError(
            f"tune: got no full trial with a loss ({got}), expected at least one; look at welltuned show "
            f"{stage.folder}, and give a larger --budget in another --folder"
        )
    return beliefs[0], results


def _tuned(stage: Stage, belief: Belief, results: Sequence[Result], cost: float, moved: Transferred | None) -> Tuned:
    assert belief.best is not None
    reruns = tuple(result for result in results if result.role is Role.CONFIRM)
    bases = [result.base_validation_nll for result in results if result.base_validation_nll is not None]
    spent, budget = belief.spent + len(reruns) + cost, budget_of(stage.spec) + cost
    return Tuned(belief, belief.best, bases[0] if bases else None, reruns, spent, budget, moved)


def _optimum(stage: Stage, belief: Belief) -> Found:
    """Return the proxy's best learning rate at its best batch size, with what is not known of it."""
    assert belief.best is not None
    best = belief.best
    place = (best.batch_size, best.rank)
    found = next(one for one in belief.best_rates if (one.batch_size, one.rank) == place)
    survey = stage.plan.survey_of(best)
    here = Setting(best.method, best.rank, best.alpha, best.batch_size, survey.hidden_size, best.num_train)
    ends = (2.0 ** (found.log2_rate + sign * NORMAL_90 * found.sd) for sign in (-1, 0, 1))
    low, rate, high = ends
    return Found(here, rate, low, high)


def _setting(draft: tune_spec.Draft, rank: int) -> Setting:
    config = draft.config
    return Setting(config.method, rank, config.alpha, config.batch_size, draft.survey.hidden_size, config.num_train)


def _check_movable(request: Request, target: tune_spec.Draft, smaller: tune_spec.Draft) -> None:
    """Refuse a method whose learning rate no rule can move from the proxy to the target, before the proxy is tuned."""
    here, there = (_setting(draft, draft.config.rank) for draft in (smaller, target))
    try:
        proxies.path(check(here), check(there))
    except InputError as error:
        raise InputError(
            f"--proxy: got method '{request.method}', expected one whose learning rate the rules can move from "
            f"{request.proxy} to {request.base}; leave out --proxy, or choose another --method ({error})"
        ) from error


def _moves(moved: Transferred) -> str:
    steps = ", ".join(f"{move.factor:.2f} for {move.rule.name}" for move in moved.moves) or "nothing to move it by"
    return f"its learning rate times {steps} is {moved.learning_rate:.2e} ({moved.low:.1e} to {moved.high:.1e}, 90 %)"


def _check_same(folder: Path, written: str) -> None:
    """Refuse a folder that another request began."""
    file = folder / REQUEST
    then = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    now = json.loads(written)
    names = [name for name in now if then.get(name) != now[name]]
    if names:
        changed = ", ".join(f"{name} {now[name]} instead of {then.get(name)}" for name in names)
        got = f"another request than {folder} began with: {changed}"
        raise InputError(problem("tune", got, "the same one", "say it as before, or name another --folder"))
