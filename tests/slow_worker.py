"""The fake worker on a machine that is too busy: every pack takes longer than anybody waits for it."""

import time
from collections.abc import Iterator

import fake_worker
from welltuned.records import Event, Job, Runtime, TrainJob


def run(job: Job, runtime: Runtime) -> Iterator[Event]:
    """Answer surveys; packs last."""
    if isinstance(job, TrainJob):
        time.sleep(3600)
    yield from fake_worker.run(job, runtime)
