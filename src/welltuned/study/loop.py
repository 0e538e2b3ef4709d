"""The one loop of the program: finish what is open, ask the search what it wants next, plan it, store the plan, go on.

Everything that happens comes back through the store, hence resuming is nothing but running the loop again.
"""

import itertools
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from welltuned import plan as plans
from welltuned import plan_cost, plugins
from welltuned.analysis.wording import plural
from welltuned.costs import flops
from welltuned.errors import MachineError, StoreError, WelltunedError
from welltuned.executors.inline import Inline
from welltuned.plan import Plan
from welltuned.records import (
    ORACLE,
    ExamJob,
    JobLost,
    Outcome,
    Progress,
    Proposal,
    RetentionJob,
    StoredJob,
    TrainJob,
    Trial,
)
from welltuned.spec import Spec
from welltuned.store import DifferingEvent, Store, ledger
from welltuned.study import lost, surveys
from welltuned.study.options import Note, Observer, Options, Planned, Started, silent
from welltuned.study.view import Study

EXAM_TRIALS = 16  # adapters that are graded together at the most; assumed
EXAM_FLOPS = 2e13  # of one exam, which an interruption repeats: about a minute on two cores; assumed


@dataclass(frozen=True)
class Session:
    """An open study: what work on it needs."""

    store: Store
    plan: Plan
    executor: Inline
    observe: Observer
    memory_bytes: int
    device: str


def run(
    spec: Spec | str | Path,
    folder: str | Path | None = None,
    observe: Observer = silent,
    options: Options | None = None,
) -> Study:
    """Run a study to its end, or go on with it. `folder` is runs/<name> unless given.

    It may be interrupted at any time, by Ctrl-C or kill -9: run it again to go on.
    """
    return within(spec, folder, observe, options, train)


def within(
    spec: Spec | str | Path,
    folder: str | Path | None,
    observe: Observer,
    options: Options | None,
    work: Callable[[Session], None],
) -> Study:
    """Open a study for writing, or make it, do some work on it, and return what is stored."""
    source = (
        None if isinstance(spec, Spec) else Path(spec).read_text(encoding="utf-8") if Path(spec).is_file() else None
    )
    spec = spec if isinstance(spec, Spec) else Spec.load(spec)
    folder = folder_of(spec, folder)
    options = options or Options()
    with Store.create(folder, spec.name, spec.text(), spec.hash(), source) as store:
        try:
            _open(store, spec, options, observe, work)
        except KeyboardInterrupt:
            counts = store.counts()
            num_ended = counts.num_trials - counts.num_open
            stored = (
                f"{num_ended} of {counts.num_trials} trials are finished, the others stored up to their last checkpoint"
            )
            observe(Note(f"Interrupted. In {folder} {stored}; run the same command again to go on."))
            raise
    return Study(folder)


def folder_of(spec: Spec, folder: str | Path | None) -> Path:
    """Return where a study is kept."""
    return Path("runs") / spec.name if folder is None else Path(folder)


def _open(store: Store, spec: Spec, options: Options, observe: Observer, work: Callable[[Session], None]) -> None:
    threads = _settled(store, "threads", options.threads, options.new_threads)
    with Inline(options.runtime(str(store.blobs), threads, spec.search.keep_moments), options.entry) as executor:
        known = surveys.collect(spec, store.surveys(), executor, options.entry, observe)
        for key, survey in known.items():
            store.append(survey, key)
        plan = plans.make(spec, known)
        _check_same_inputs(store, plan)
        store.settle("cell", json.dumps(plan.cell))
        memory_bytes = _settled(store, "memory_bytes", options.memory_bytes, options.new_memory_bytes)
        observe(Planned(plan, store.counts()))
        work(Session(store, plan, executor, observe, memory_bytes, options.device))


def train(session: Session, grade: bool = True) -> None:
    """Do what the search wants until it wants nothing more; without `grade`, nothing that reads test data."""
    store, plan = session.store, session.plan
    search = plugins.load("searches", plan.spec.search.search)
    while True:
        finish_open_jobs(session)
        proposal: Proposal = search.propose(plan, store.results())
        if proposal.finished or (not grade and not proposal.trials):
            store.settle("finished", "yes")
            return
        _add(proposal, plan, store, session.memory_bytes, session.device)


def finish_open_jobs(session: Session) -> None:
    """Run every stored job that has not come to its end."""
    while jobs := session.store.open_jobs():
        _run_job(jobs[0], session.store, session.executor, session.observe)


def _settled(store: Store, key: str, asked: int | None, now: Callable[[], int]) -> int:
    """Return what is asked for, else what the study began with, else what this machine has now; remember the first.

    Packs and sums split in another way differ in their last bits, so a resumed study keeps to what it began with.
    """
    known = store.fact(key) or store.settle(key, str(asked or now()))
    return asked or int(known)


def _add(proposal: Proposal, plan: Plan, store: Store, memory_bytes: int, device: str) -> None:
    """Store what the search wants next: packs of trials, or exams of frozen ones."""
    store.add_trials(proposal.trials)  # one that equals a finished trial has its result by this
    ended = {result.trial_id for result in store.results()}
    wanted = [trial for trial in proposal.trials if trial.id not in ended]
    store.freeze(proposal.exams)
    jobs = [*plans.pack(wanted, plan.surveys, memory_bytes, device), *exams(proposal.exams, plan, store, "test")]
    if not jobs and len(wanted) == len(proposal.trials):
        raise WelltunedError(
            f"search '{plan.spec.search.search}' wants nothing and says that it is not finished; this is a defect of it"
        )
    store.add_jobs(jobs)


def exams(trials: Sequence[Trial], plan: Plan, store: Store, split: str) -> list[ExamJob]:
    """Return the jobs that grade these trials' adapters on a split."""
    parts = parts_of(trials, store, lambda trial: _exam_width(trial, plan))
    return [lost.exam(part, adapters, split) for part, adapters in parts]


def parts_of(
    trials: Sequence[Trial], store: Store, width: Callable[[Trial], int]
) -> Iterable[tuple[list[Trial], list[str]]]:
    """Cut trials into parts that share base and data, `width` of them at the most; with each its adapters."""
    adapters = {result.trial_id: result.adapter for result in store.results()}
    ordered = sorted(trials, key=_exam_key)
    for _, members in itertools.groupby(ordered, key=_exam_key):
        rest = list(members)
        most = width(rest[0])
        for part in (rest[start : start + most] for start in range(0, len(rest), most)):
            yield part, [_given(adapters[trial.id], trial) for trial in part]


def _exam_key(trial: Trial) -> tuple[bool, str]:
    """Return what trials that are graded together share."""
    return flops.trains_whole(trial.config), json.dumps(trial.config.data_key())


def _exam_width(trial: Trial, plan: Plan) -> int:
    """Return the number of adapters that are graded together; one that is a whole model has the base to itself."""
    if flops.trains_whole(trial.config):
        return 1
    return max(1, min(EXAM_TRIALS, int(EXAM_FLOPS / plan_cost.exam_flops(trial.config, plan.survey_of(trial.config)))))


def _given(adapter: str | None, trial: Trial) -> str:
    if adapter is None:
        raise WelltunedError(f"trial {trial.id} is to be graded and has no adapter; this is a defect of welltuned")
    return adapter


def _run_job(job: StoredJob, store: Store, executor: Inline, observe: Observer) -> None:
    """Run one job to its end, storing every event before anybody sees it; plan anew what the machine lost.

    A pack that goes on from its last checkpoint may end trials that had ended already, which is not told twice.
    """
    if isinstance(job, ExamJob):
        _log_read(job, store, observe)
    observe(Started(job, store.counts()))
    events = executor.run(job)
    try:
        for event in events:
            is_new = isinstance(event, Progress) or store.append(event, job.id)
            if is_new or not isinstance(event, Outcome):
                observe(event)
            if isinstance(event, JobLost):
                _replace(job, event.reason, store, observe, afresh=False)
    except DifferingEvent as error:
        events.close()
        store.append(JobLost(job.id, str(error), differs=True), job.id)
        _replace(job, str(error), store, observe, afresh=True)


def _log_read(job: ExamJob, store: Store, observe: Observer) -> None:
    """Log that the test data is about to be read, in the study and for all studies of this user; refused too early."""
    log = store.log_oracle_read if job.split == ORACLE else store.log_test_read
    log(ledger.items_key(job.trials[0].config), job.trials)
    failure = ledger.note(job.trials, store.spec_hash, store.name)
    if failure:
        observe(
            Note(f"The ledger of test reads cannot be written ({failure}): other studies will not count this read.")
        )


def _replace(job: StoredJob, reason: str, store: Store, observe: Observer, afresh: bool) -> None:
    ended = store.ended(job.id)
    left = [trial for trial in job.trials if trial.id not in ended]
    num_losses = store.num_losses(job.id)
    job = next(found for found in store.open_jobs() if found.id == job.id)  # with its newest checkpoint
    num_failures = store.num_losses(job.id, failures_only=True)
    if not left:
        replacement = ()
    elif afresh:
        replacement = lost.afresh(job, num_losses, left)
    else:
        replacement = lost.again(job, num_losses, num_failures, left)
    if replacement == (job,):
        observe(Note(f"Lost {job.id} ({reason}); going on from its checkpoint."))
    elif replacement is None:
        _give_up(job, left, num_losses, reason, store, observe)
    else:
        store.add_jobs(replacement, replaces=job.id, reason=reason)
        shapes = " and ".join(_shape(part) for part in replacement)
        observe(
            Note(f"Lost {job.id} ({reason}); trying again with {shapes or 'nothing, since all its trials have ended'}.")
        )


def _give_up(
    job: StoredJob, left: Sequence[Trial], num_losses: int, reason: str, store: Store, observe: Observer
) -> None:
    """Record trials that the machine cannot train as LOST; what it cannot grade stays open, since it is trained."""
    if not isinstance(job, TrainJob):
        what = plural(len(left), "adapter")
        work = f"measuring {what} on {job.text}" if isinstance(job, RetentionJob) else f"grading {what}"
        raise MachineError(
            f"{work}: the worker was lost {num_losses} times, the last time because {reason}; "
            "free some memory and run again: nothing is lost"
        )
    for trial in left:
        outcome = lost.given_up(trial, num_losses, reason)
        store.append(outcome, job.id)
        observe(outcome)
    store.add_jobs([], replaces=job.id, reason=reason)
    observe(Note(f"Lost {job.id} {num_losses} times ({reason}); its {len(left)} trials are given up and not scored."))


def _shape(job: StoredJob) -> str:
    rows = f", {job.micro_rows} rows of each" if isinstance(job, TrainJob) else ""
    return f"{len(job.trials)} trials{rows}"


def _check_same_inputs(store: Store, plan: Plan) -> None:
    """Refuse to go on where weights, data or a plug-in changed: old and new trials would not be one study."""
    now: dict[str, str] = {}
    for config in (config for arm in plan.arms for config in arm.configs):
        now[f"base {config.base}"] = config.base_hash
        now[f"data of task {config.task}"] = config.data_hash
        now[f"version of task {config.task}"] = str(config.task_version)
        if config.start_from is not None:
            now[f"adapter {config.start_from}"] = config.start_hash
        now[f"version of method {config.method}"] = f"{config.method_version} {config.method_source}".strip()
    if plan.sharpness:
        now[f"curvature {plan.spec.search.curvature}"] = repr(sorted(plan.sharpness.items()))
    then: dict[str, str] = json.loads(store.settle("inputs", json.dumps(now, sort_keys=True)))
    changed = [
        f"{name} (got {now.get(name)}, expected {value})" for name, value in then.items() if now.get(name) != value
    ]
    if changed:
        raise StoreError(
            f"study folder {store.folder}: changed since the study began: {', '.join(changed)}; put the old one back, "
            "or run in another folder"
        )
