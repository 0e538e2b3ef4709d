"""What to do with a job that the machine lost: go on, then half the rows, then half the trials, then give up. Pure."""

import dataclasses
import hashlib
from collections.abc import Sequence

from welltuned.costs import packing
from welltuned.records import ExamJob, Outcome, RetentionJob, Status, StoredJob, TrainJob, Trial

MAX_RETRIES = 3  # design decision D6


def again(job: StoredJob, num_losses: int, num_failures: int, left: Sequence[Trial]) -> tuple[StoredJob, ...] | None:
    """Return what replaces a job on its `num_failures`-th failure; (job,) to go on with it as it is, None to give up.

    `num_losses` counts the replacements after an interruption as well (`afresh`). `left` are the job's trials that have
    not ended. A pack that came as far as a checkpoint did fit into memory, so the first time it goes on from there.
    """
    if num_failures > MAX_RETRIES:
        return None
    if not isinstance(job, TrainJob):
        return tuple(_numbered(part, num_losses) for part in _halves(job, left))
    if num_failures == 1 and job.resume is not None:
        return (job,)
    rest = packing.reshaped(job, left, job.micro_rows)
    return tuple(_numbered(part, num_losses) for part in packing.smaller(rest) or (rest,))


def afresh(job: StoredJob, num_losses: int, left: Sequence[Trial]) -> tuple[StoredJob, ...]:
    """Return what replaces a job that did not repeat its own numbers on resuming: the same, from the start.

    As often as it takes: this follows an interruption, which is nobody's fault, and what starts anew repeats nothing.
    """
    if not isinstance(job, TrainJob):
        return (_numbered(_part(job, left), num_losses),)
    return (_numbered(packing.reshaped(job, left, job.micro_rows), num_losses),)


def given_up(trial: Trial, num_losses: int, reason: str) -> Outcome:
    """Return the outcome of a trial that the machine could not train; it is never scored."""
    return Outcome(
        trial_id=trial.id,
        status=Status.LOST,
        reason=f"lost {num_losses} times, the last time because {reason}",
        num_steps=0,
        num_samples=0,
        num_tokens=0,
        seconds=0.0,
        pack_seconds=0.0,
        clip_fraction=0.0,
        validation_nll=None,
        adapter=None,
        train_losses=(),
        num_trainable=0,
    )


def exam(trials: Sequence[Trial], adapters: Sequence[str], split: str) -> ExamJob:
    """Return the job that grades these adapters; its id is the hash of theirs."""
    pack = packing.make_job(trials, 1)
    return ExamJob(f"exam-{split}-{pack.id}", tuple(trials), tuple(adapters), split)


def retention(trials: Sequence[Trial], adapters: Sequence[str], text: str) -> RetentionJob:
    """Return the job that measures these adapters on a text."""
    pack = packing.make_job(trials, 1)
    name = hashlib.sha256(text.encode()).hexdigest()[:8]
    return RetentionJob(f"retention-{name}-{pack.id}", tuple(trials), tuple(adapters), text)


def _halves(job: ExamJob | RetentionJob, left: Sequence[Trial]) -> list[ExamJob | RetentionJob]:
    half = (len(left) + 1) // 2
    return [_part(job, part) for part in (left[:half], left[half:]) if part]


def _part(job: ExamJob | RetentionJob, left: Sequence[Trial]) -> ExamJob | RetentionJob:
    adapters = dict(zip(job.trials, job.adapters, strict=True))
    mine = [adapters[trial] for trial in left]
    return exam(left, mine, job.split) if isinstance(job, ExamJob) else retention(left, mine, job.text)


def _numbered(job: StoredJob, num_losses: int) -> StoredJob:
    """Mark a job as a replacement, so that it is not taken for an equal one that was lost."""
    return dataclasses.replace(job, id=f"{job.id}.{num_losses}")
