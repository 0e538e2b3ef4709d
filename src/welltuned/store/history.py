"""Rows read back as results: which events belong to which trial. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from welltuned.records import Event, ExamJob, Graded, Outcome, Point, Result, Role, Status, StoredJob, Trial


@dataclass(frozen=True)
class Counts:
    """Where a study stands."""

    num_trials: int  # known so far; a search may propose more
    num_finished: int
    num_diverged: int
    num_stopped: int
    num_lost: int
    num_open: int
    num_graded: int  # on the test split
    num_jobs: int  # packs and exams
    num_jobs_open: int
    num_jobs_lost: int  # lost to the machine and run again


def results(
    trials: Sequence[Trial], jobs: Sequence[StoredJob], events: Iterable[tuple[str, Event]]
) -> tuple[Result, ...]:
    """Return a Result for every trial that has ended, in the order in which the trials were planned.

    A trial that was packed again after its first pack was lost has points of both packs; only those of the pack that
    ended it count.
    """
    points: dict[tuple[str, str], list[Point]] = {}
    outcomes: dict[str, tuple[str, Outcome]] = {}
    graded: dict[tuple[str, Role], Graded] = {}
    roles = {(job.id, trial.id): trial.role for job in jobs if isinstance(job, ExamJob) for trial in job.trials}
    for job_id, event in events:
        if isinstance(event, Point):
            points.setdefault((job_id, event.trial_id), []).append(event)
        elif isinstance(event, Outcome):
            outcomes[event.trial_id] = (job_id, event)
        elif isinstance(event, Graded) and event.split == "test":
            graded[event.trial_id, roles[job_id, event.trial_id]] = event
    sizes = {job.id: len(job.trials) for job in jobs}
    named = [(trial.id, trial) for trial in trials]  # an id is a hash, not to be computed over and over
    return tuple(
        _result(name, trial, outcomes[name], points, graded.get((name, trial.role)), sizes)
        for name, trial in named
        if name in outcomes
    )


def _result(
    trial_id: str,
    trial: Trial,
    ended: tuple[str, Outcome],
    points: Mapping[tuple[str, str], Sequence[Point]],
    graded: Graded | None,
    sizes: Mapping[str, int],
) -> Result:
    job_id, outcome = ended
    curve = tuple(sorted(points.get((job_id, trial_id), ()), key=lambda point: point.step))
    base = next((point.validation_nll for point in curve if point.step == 0), None)
    return Result(
        trial_id=trial_id,
        role=trial.role,
        config=trial.config,
        status=outcome.status,
        reason=outcome.reason,
        curve=curve,
        num_steps=outcome.num_steps,
        num_tokens=outcome.num_tokens,
        seconds=outcome.seconds,
        pack_id=job_id,
        num_pack=sizes[job_id],
        clip_fraction=outcome.clip_fraction,
        validation_nll=outcome.validation_nll,
        base_validation_nll=base,
        test_correct=None if graded is None else graded.correct,
        adapter=outcome.adapter,
        num_trainable=outcome.num_trainable,
    )


def count(
    ended: Sequence[Result], trials: Sequence[Trial], num_jobs: int, num_jobs_open: int, num_jobs_lost: int
) -> Counts:
    """Count a study's trials by how they ended."""
    by_status = {status: sum(result.status is status for result in ended) for status in Status}
    return Counts(
        num_trials=len(trials),
        num_finished=by_status[Status.FINISHED],
        num_diverged=by_status[Status.DIVERGED],
        num_stopped=by_status[Status.STOPPED],
        num_lost=by_status[Status.LOST],
        num_open=len(trials) - len(ended),
        num_graded=sum(result.test_correct is not None for result in ended),
        num_jobs=num_jobs,
        num_jobs_open=num_jobs_open,
        num_jobs_lost=num_jobs_lost,
    )
