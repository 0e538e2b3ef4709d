"""A worker that trains nothing: pure Python, deterministic, checkpointing, done in milliseconds.

Its "model" is one number per trial that follows a chaotic map, so that a step left out, repeated or resumed from the
wrong state shows in every later number.
"""

import dataclasses
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from welltuned.errors import InputError, MachineError, StoreError
from welltuned.records import (
    Checkpoint,
    Event,
    ExamJob,
    Graded,
    Job,
    JobEnd,
    Outcome,
    Point,
    Progress,
    Retained,
    RetentionJob,
    Runtime,
    Site,
    Status,
    Survey,
    SurveyJob,
    TrainJob,
    Trial,
)
from welltuned.store import blobs

SURVEY = Survey(
    config_key="",
    sites=(Site("layers.0.q", 8, 8), Site("layers.0.o", 8, 8)),
    num_parameters=1000,
    num_base_weights=128,
    num_head_weights=800,
    hidden_size=8,
    num_layers=1,
    num_heads=2,
    vocab_size=100,
    num_train_available=64,
    num_validation=8,
    num_test=8,
    mean_tokens=20.0,
    longest_tokens=32,
    mean_target_tokens=10.0,
    num_truncated=0,
    num_dropped=0,
    num_duplicates=0,
)
MICRO_STEPS = 12
STEPS_BETWEEN_CHECKPOINTS = 3
STEP_SECONDS = float(os.environ.get("FAKE_STEP_SECONDS", "0"))
# A folder of files whose names say what to do wrong, once each.
READS = os.environ.get("FAKE_READS", "")  # a file to note reads of test data in
MOODS = Path(os.environ.get("FAKE_MOODS", "/nonexistent"))


def run(job: Job, runtime: Runtime) -> Iterator[Event]:
    """Do what the real worker does, in miniature."""
    begin = time.perf_counter()
    if isinstance(job, SurveyJob):
        _kill_if("survey")
        yield dataclasses.replace(SURVEY, config_key=job.id)
    elif isinstance(job, ExamJob):
        _note_reads(job)
        _kill_if("exam")
        for trial in job.trials:
            correct = tuple((_start(trial) * 1000 + index) % 3 < 1 for index in range(8))
            yield Graded(trial.id, job.split, correct, 10, time.perf_counter() - begin)
    elif isinstance(job, RetentionJob):
        _kill_if("retention")
        for trial in job.trials:
            yield Retained(trial.id, job.text, "t" * 16, 100, 2.0, 2.0 + _start(trial) / 10)
    else:
        yield from _train(job, Path(runtime.blobs), begin)
    yield JobEnd(job.id, time.perf_counter() - begin, 1, json.dumps({"device": runtime.device}))


def _train(job: TrainJob, folder: Path, begin: float) -> Iterator[Event]:
    numbers = {trial.id: _start(trial) for trial in job.trials}
    sums = dict.fromkeys(numbers, 0.0)
    first = 0
    if job.resume is None:
        for trial in job.trials:
            yield Point(trial.id, 0, 0, 0, trial.config.learning_rate, None, 3.0)
    else:
        state = json.loads(blobs.path(folder, job.resume).read_text())
        numbers, sums, first = state["numbers"], state["sums"], state["step"]
    for step in range(first + 1, MICRO_STEPS + 1):
        _misbehave(job)
        time.sleep(STEP_SECONDS)
        for trial in job.trials:
            numbers[trial.id] = 3.9 * numbers[trial.id] * (1 - numbers[trial.id])
            sums[trial.id] += numbers[trial.id]
            if step % 3 == 0:
                loss = sums[trial.id] / step
                yield Point(trial.id, step, 8 * step, 160 * step, trial.config.learning_rate, numbers[trial.id], loss)
        yield Progress(job.id, step / MICRO_STEPS, 1.0)
        if step % STEPS_BETWEEN_CHECKPOINTS == 0 and step < MICRO_STEPS:
            state = {"numbers": numbers, "sums": sums, "step": step, "clock": time.time()}
            yield Checkpoint(job.id, step, blobs.write(folder, json.dumps(state).encode()))
    for trial in job.trials:
        seconds = time.perf_counter() - begin
        diverged = trial.config.learning_rate > 0.5
        yield Outcome(
            trial_id=trial.id,
            status=Status.DIVERGED if diverged else Status.FINISHED,
            reason="the loss went above the threshold" if diverged else "",
            num_steps=MICRO_STEPS,
            num_samples=8 * MICRO_STEPS,
            num_tokens=160 * MICRO_STEPS,
            seconds=seconds,
            pack_seconds=seconds,
            clip_fraction=0.0,
            validation_nll=3.0 if diverged else sums[trial.id] / MICRO_STEPS,
            adapter=None if diverged else blobs.write(folder, f"adapter {trial.id} {numbers[trial.id]!r}".encode()),
            train_losses=(numbers[trial.id],),
            num_trainable=128,
        )


def _note_reads(job: ExamJob) -> None:
    """Write down whose answers are about to be graded, so that a test can count how often test data was read."""
    if READS:
        with Path(READS).open("a") as file:
            file.writelines(f"{trial.id}\n" for trial in job.trials)


def _start(trial: Trial) -> float:
    """Return the trial's number at step 0: a function of its configuration."""
    return 0.1 + 0.8 * int(trial.id, 16) / 16**16


def _kill_if(word: str) -> None:
    for mood in sorted(MOODS.glob(f"{word}*")):
        mood.unlink()
        os.kill(os.getpid(), signal.SIGKILL)


def _misbehave(job: TrainJob) -> None:
    """Do one of the wrong things that FAKE_MOODS asks for, and strike it from the list."""
    for mood in sorted(MOODS.iterdir()) if MOODS.is_dir() else ():
        word = mood.name.partition("-")[0]
        if word in ("survey", "exam", "retention"):
            continue
        if word == "large":  # memory: enough for few rows only
            if job.micro_rows * len(job.trials) > int(mood.read_text()):
                os.kill(os.getpid(), signal.SIGKILL)
            continue
        mood.unlink()
        match word:
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "exit":
                os._exit(3)
            case "crash":
                raise ZeroDivisionError("planted")
            case "memory":
                raise MemoryError("planted")
            case "input":
                raise InputError(["first problem", "second problem"])
            case "store":
                raise StoreError("planted store error")
            case "machine":
                raise MachineError("planted machine error")
