"""welltuned as it is used: packs, or one trial at a time, through the worker that `welltuned run` calls."""

import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from benchmarks import child
from benchmarks.records import Assignment, Measurement
from welltuned import worker
from welltuned.packing.batch import Block, RowTable
from welltuned.records import JobLost, Outcome, Runtime

NO_CHECKPOINTS = 1e9  # seconds


def run(task: Assignment) -> Measurement:
    """Train the jobs one after the other in this process."""
    began = time.perf_counter()
    losses: dict[str, list[float]] = {}
    ended: dict[str, str] = {}
    job_seconds: list[float] = []
    with tempfile.TemporaryDirectory() as blobs, counted_slots() as slots:
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
        compile_seconds=child.compile_seconds(),
        peak_bytes=child.peak_bytes(),
        num_padded_tokens=slots[max(slots)],
        losses=losses,
        job_seconds=job_seconds,
        ended=ended,
    )


@contextmanager
def counted_slots() -> Iterator[Counter[int]]:
    """Count the token slots of the blocks inside, by the size of the table that they come from.

    The largest table is that of the training rows, of which a case has more than validation rows.
    """
    slots: Counter[int] = Counter()
    gather = RowTable.block

    def counted(self: RowTable, rows: Sequence[np.ndarray], width: int, num_tokens: int | None = None) -> Block:
        block = gather(self, rows, width, num_tokens)
        slots[len(self.lengths)] += block.ids_RT.numel()
        return block

    RowTable.block = counted
    try:
        yield slots
    finally:
        RowTable.block = gather
