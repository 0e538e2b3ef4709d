"""One trial after the other on a base that is loaded once: the frame of the Trainer's and the bare loop's runs."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from benchmarks import child
from benchmarks.peft_side import Example, load_model, num_slots, ordered_batches
from benchmarks.records import Assignment, Measurement, Setting
from benchmarks.work import training_rows
from welltuned.executors.machine import peak_bytes
from welltuned.records import Config


@dataclass(frozen=True)
class Trained:
    """A trial: the loss of every step, and the seconds of its steps alone (compiling included)."""

    losses: list[float]
    seconds: float


# (the bare base, the trial, its batches, the setting) -> the trial; the base is bare again afterwards
Train = Callable[[PreTrainedModel, Config, list[list[Example]], Setting], Trained]


def one_after_the_other(task: Assignment, train: Train) -> Measurement:
    """Train the trials of the assignment one after the other in this process."""
    torch.set_num_threads(task.threads)
    assert task.setting is not None, "a sequential runner needs a setting"
    began = start = time.perf_counter()
    configs = [trial.config for trial in task.trials]
    model = load_model(configs[0], task.setting)
    rows = training_rows(configs)
    losses: dict[str, list[float]] = {}
    job_seconds: list[float] = []
    step_seconds: list[float] = []
    slots = 0
    for trial in task.trials:
        examples = ordered_batches(trial.config, rows)
        trained = train(model, trial.config, examples, task.setting)
        losses[trial.id] = trained.losses
        step_seconds.append(trained.seconds)
        slots += num_slots(examples, task.setting)
        job_seconds.append(time.perf_counter() - start)
        start = time.perf_counter()
    return Measurement(
        seconds=time.perf_counter() - began,
        compile_seconds=child.compile_seconds(),
        peak_bytes=peak_bytes(),
        num_padded_tokens=slots,
        losses=losses,
        job_seconds=job_seconds,
        step_seconds=step_seconds,
    )
