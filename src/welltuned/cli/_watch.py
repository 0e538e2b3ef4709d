"""Waiting for a study to grow: polls of its store, until it is finished or nobody runs it any more.

Every poll opens the store anew and closes it: a reader that stayed would keep the writer from leaving its file whole.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from welltuned.store import Store

POLL_SECONDS = 2.0  # assumed: often enough to look alive, seldom enough to take no time from the training


@dataclass(frozen=True)
class Poll:
    """What one look at the store found."""

    changed: bool  # something was stored since the last look; true for the first
    planned: bool  # there is a plan, hence something to show
    finished: bool
    running: bool  # a process of this machine runs the study

    @property
    def last(self) -> bool:
        """Say whether nothing more will come."""
        return self.finished or not self.running


def polls(folder: Path, sleep: Callable[[float], None], poll_seconds: float = POLL_SECONDS) -> Iterator[Poll]:
    """Look at once and after every pause; the last poll is one that found the study finished or left."""
    num_rows = None
    while True:
        with Store.open(folder) as store:
            now = store.num_rows()
            finished, planned = store.fact("finished") is not None, store.fact("cell") is not None
            poll = Poll(now != num_rows, planned, finished, store.holder() is not None)
        yield poll
        if poll.last:
            return
        num_rows = now
        sleep(poll_seconds)


def ending(poll: Poll, folder: Path) -> str:
    """Say why the watching ends."""
    if poll.finished:
        return "the study is finished"
    return f"no process runs the study now; welltuned run {folder / 'spec.toml'} --folder {folder} goes on with it"
