"""Where and how a study runs, and what an observer is told; none of it is part of a trial's id."""

from collections.abc import Callable
from dataclasses import dataclass

from welltuned.executors import inline, machine
from welltuned.plan import Plan
from welltuned.records import Event, Job, Runtime
from welltuned.store import Counts


@dataclass(frozen=True)
class Options:
    """Where and how to run. None means: what the study began with, else what this machine has."""

    device: str = "cpu"
    threads: int | None = None
    memory_bytes: int | None = None
    checkpoint_seconds: float = 30.0  # at most this much work is repeated after a kill
    entry: str = inline.ENTRY  # "module:function" that runs a job

    def runtime(self, blobs: str, threads: int, keep_moments: bool = False) -> Runtime:
        """Return what a worker is told."""
        return Runtime(self.device, threads, self.checkpoint_seconds, blobs, keep_moments)

    def new_threads(self) -> int:
        """Return the threads for a study that begins here."""
        return self.threads or machine.num_threads()

    def new_memory_bytes(self) -> int:
        """Return the memory to plan packs for in a study that begins here."""
        return self.memory_bytes or machine.memory_bytes(self.device)


@dataclass(frozen=True)
class Planned:
    """The study is planned; its trials are known as far as they can be."""

    plan: Plan
    counts: Counts


@dataclass(frozen=True)
class Started:
    """A job starts now, or goes on from its checkpoint."""

    job: Job
    counts: Counts


@dataclass(frozen=True)
class Note:
    """A line for the user."""

    text: str


Notice = Planned | Started | Note
Observer = Callable[[Event | Notice], None]


def silent(event: Event | Notice) -> None:
    """Observe nothing."""
    del event
