"""The worker: runs one job and yields its events. It holds the base between jobs, and the one broad `except`."""

import json
import os
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import transformers

from welltuned import data, fingerprint, plan, plugins
from welltuned.errors import WelltunedError
from welltuned.evaluate import exam, retention
from welltuned.executors import machine
from welltuned.models import base as bases
from welltuned.packing import adapter_file, blocks, probe
from welltuned.packing.batch import RowTable
from welltuned.packing.linear import PackedModel
from welltuned.packing.state import PackState, assemble, grouped
from welltuned.records import (
    ORACLE,
    Config,
    Event,
    ExamJob,
    Job,
    JobEnd,
    JobLost,
    Progress,
    RetentionJob,
    Runtime,
    SurveyJob,
    TrainJob,
    Trial,
)
from welltuned.store import blobs
from welltuned.survey import survey
from welltuned.train.loop import PackRun

TRAINING_SPLITS = ("train", "validation")  # a training job never sees the test split (design D8)


@dataclass
class _Held:
    """The base that the last job used, kept for the next one."""

    key: tuple | None = None
    model: PackedModel | None = None


_held = _Held()


def run(job: Job, runtime: Runtime) -> Iterator[Event]:
    """Run a job to its JobEnd. Memory that runs out is a JobLost; wrong input raises InputError."""
    _prepare(runtime)
    started = time.monotonic()
    try:
        if isinstance(job, SurveyJob):
            yield survey(job)
        elif isinstance(job, TrainJob):
            yield from _train(job, runtime)
        elif isinstance(job, ExamJob):
            yield from _examine(job, runtime)
        else:
            yield from _retain(job, runtime)
    except WelltunedError:
        raise
    except Exception as error:
        if not _is_out_of_memory(error):
            raise
        yield JobLost(job.id, f"out of memory: {error}")
        return
    yield JobEnd(job.id, time.monotonic() - started, _peak_bytes(runtime), _environment(runtime))


def _prepare(runtime: Runtime) -> None:
    """Set what PyTorch needs before its first tensor: on a GPU, too, the same plan gives the same bits (design D7).

    There the backward pass of fused attention adds up in any order, unless it is asked not to.
    """
    torch.set_num_threads(runtime.threads)
    if runtime.device != "cpu":
        os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # as nvidia-smi counts, which planned the memory
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS needs for that
        # Nothing here reads what it has not written.
        torch.utils.deterministic.fill_uninitialized_memory = False  # pyright: ignore[reportAttributeAccessIssue]
        torch.use_deterministic_algorithms(True)
        # Partial sums in bfloat16 would lose small changes again (models/summed.py).
        torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
        torch.cuda.reset_peak_memory_stats(runtime.device)


def _peak_bytes(runtime: Runtime) -> int:
    """Return the most memory that the job's device gave to this process (on a GPU without the driver's own)."""
    if runtime.device == "cpu":
        return machine.peak_bytes()
    return torch.cuda.max_memory_reserved(runtime.device)


def _train(job: TrainJob, runtime: Runtime) -> Iterator[Event]:
    if job.compiled:
        blocks.get_ready(torch.device(runtime.device))
    model, train, validation = inputs(job, runtime)
    yield Progress(job.id, 0.0, 0.0, _beginning(job, model))
    yield from PackRun(model, job, train, validation, runtime).events()


def inputs(job: TrainJob, runtime: Runtime) -> tuple[PackedModel, RowTable, RowTable]:
    """Return what a pack is trained on: its base, training rows and validation rows."""
    configs = [trial.config for trial in job.trials]
    model = _model(configs[0], runtime)
    plan.check_data(configs[0])
    tokenizer = model.base.tokenizer
    rows = data.load(data.widest(configs), tokenizer, TRAINING_SPLITS)
    train, validation = (RowTable(rows[split], _pad_id(tokenizer), model.base.device) for split in TRAINING_SPLITS)
    return model, train, validation


def _beginning(job: TrainJob, model: PackedModel) -> str:
    """Say what comes before the first step of a pack, and what cannot be done here."""
    if not job.compiled:
        return "initialising"
    device = model.base.device
    missing = "C++ compiler" if device.type == "cpu" else "Triton"
    return "compiling" if blocks.available(device) else f"no {missing}, so not compiled"


def _examine(job: ExamJob, runtime: Runtime) -> Iterator[Event]:
    config = job.trials[0].config
    model = _model(config, runtime)
    plan.check_data(config)
    tokenizer = model.base.tokenizer
    split = "test" if job.split == ORACLE else job.split
    rows = data.load(config, tokenizer, (split,))[split]
    trials, state = _adapters(job, model, runtime)
    generation = exam.prepare(model, state, rows, plugins.load("tasks", config.task), _pad_id(tokenizer))
    started = time.monotonic()
    for share, rate in exam.progress(generation):
        yield Progress(job.id, share, rate, "grading")
    seconds = (time.monotonic() - started) / len(trials)
    for trial, mine in zip(trials, generation.answers(), strict=True):
        yield exam.grade(trial, job.split, mine, rows, tokenizer, seconds)


def _retain(job: RetentionJob, runtime: Runtime) -> Iterator[Event]:
    config = job.trials[0].config
    model = _model(config, runtime)
    trials, state = _adapters(job, model, runtime)
    names = tuple(trial.id for trial in trials)
    yield Progress(job.id, 0.0, 0.0, f"loss on {job.text}")
    yield from retention.measure(model, state, names, job.text, config.max_length, _pad_id(model.base.tokenizer))


def _adapters(job: ExamJob | RetentionJob, model: PackedModel, runtime: Runtime) -> tuple[list[Trial], PackState]:
    """Load a job's adapters; return its trials in the order of the state."""
    adapters = {}
    for trial, blob in zip(job.trials, job.adapters, strict=True):
        adapters[trial.id] = adapter_file.load(blobs.path(Path(runtime.blobs), blob), runtime.device)[1]
    trials = grouped(job.trials)
    return trials, assemble(model.base, trials, [adapters[trial.id] for trial in trials])


def _model(config: Config, runtime: Runtime) -> PackedModel:
    """Return the packed base of a configuration, the one held if it is the same; every load is probed."""
    arguments = (config.base, config.revision, config.dtype, config.target_modules, runtime.device, config.quantization)
    key = (config.base_hash, *arguments)
    if _held.key != key or _held.model is None:
        _held.key = _held.model = None  # free the old one before the new one is loaded
        fingerprint.check_base(config.base, config.revision, config.base_hash)
        model = PackedModel(bases.load(*arguments))
        probe.check(model)
        _held.key, _held.model = key, model
    return _held.model


def _pad_id(tokenizer) -> int:
    """Return a token to fill up with: padding is inert, and the end token, unlike some pads, has an embedding."""
    return tokenizer.eos_token_id


def _is_out_of_memory(error: Exception) -> bool:
    """Say whether PyTorch or Python ran out of memory; PyTorch's CPU allocator has no exception class of its own."""
    known = isinstance(error, MemoryError | torch.OutOfMemoryError)
    messages = ("can't allocate memory", "std::bad_alloc")
    return known or (isinstance(error, RuntimeError) and any(message in str(error) for message in messages))


def _capability(device: str) -> str:
    """Return the instructions of the processor, or the GPU's name."""
    return torch.backends.cpu.get_cpu_capability() if device == "cpu" else torch.cuda.get_device_name(device)


def _environment(runtime: Runtime) -> str:
    facts = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "numpy": np.__version__,
        "machine": platform.machine(),
        "processor": machine.processor(),
        "system": platform.system(),
        "capability": _capability(runtime.device),
        "threads": runtime.threads,
        "device": runtime.device,
    }
    return json.dumps(facts, sort_keys=True)
