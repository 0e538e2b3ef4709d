"""welltuned as it is used: packs, or one trial at a time, through the worker that `welltuned run` calls."""

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from benchmarks import child
from benchmarks.records import Assignment, Measurement
from welltuned import worker
from welltuned.executors.machine import peak_bytes
from welltuned.packing import blocks, lines
from welltuned.packing.batch import RowTable
from welltuned.packing.lines import Lines, Size
from welltuned.records import JobLost, Outcome, Runtime

NO_CHECKPOINTS = 1e9  # seconds


def run(task: Assignment) -> Measurement:
    """Train the jobs one after the other in this process."""
    began = time.perf_counter()
    losses: dict[str, list[float]] = {}
    ended: dict[str, str] = {}
    job_seconds: list[float] = []
    with tempfile.TemporaryDirectory() as blobs, counted_slots() as slots, every_compilation() as earlier:
        for job in task.jobs:
            start = time.perf_counter()
            for event in worker.run(job, Runtime("cpu", task.threads, NO_CHECKPOINTS, blobs)):
                if isinstance(event, Outcome):
                    losses[event.trial_id], ended[event.trial_id] = list(event.train_losses), str(event.status)
                elif isinstance(event, JobLost):
                    raise MemoryError(event.reason)
            job_seconds.append(time.perf_counter() - start)
    return Measurement(
        seconds=time.perf_counter() - began,
        compile_seconds=sum(earlier) + child.compile_seconds(),
        peak_bytes=peak_bytes(),
        num_padded_tokens=slots.number,
        losses=losses,
        job_seconds=job_seconds,
        ended=ended,
    )


@contextmanager
def every_compilation() -> Iterator[list[float]]:
    """Collect the seconds of compilations that the compiler forgets, since a pack begins anew with it."""
    earlier: list[float] = []
    begin = blocks.Blocks.begin

    def noted(these: blocks.Blocks) -> None:
        earlier.append(child.compile_seconds())
        begin(these)

    blocks.Blocks.begin = noted
    try:
        yield earlier
    finally:
        blocks.Blocks.begin = begin


class Slots:
    """A count of token slots."""

    def __init__(self) -> None:
        self.number = 0


@contextmanager
def counted_slots() -> Iterator[Slots]:
    """Count the token slots of the micro-steps inside; validation is read in another way."""
    slots = Slots()
    gather = lines.gather

    def counted(table: RowTable, rows: Sequence[np.ndarray], width: int, size: Size, joined: bool) -> Lines:
        read = gather(table, rows, width, size, joined)
        slots.number += read.ids_LS.numel()
        return read

    lines.gather = counted
    try:
        yield slots
    finally:
        lines.gather = gather
