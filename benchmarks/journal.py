"""What was measured already, so that a benchmark which was cut off goes on: set WELLTUNED_BENCH_JOURNAL to a file.

A benchmark's children run in an order that its command line decides, so the number of a call names it. The file belongs
to one command line; another one is refused. Pickle, since only the benchmark that wrote it reads it.
"""

import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

VARIABLE = "WELLTUNED_BENCH_JOURNAL"


class Journal:
    """The results of this command's calls, in order."""

    def __init__(self, path: Path | None, command: list[str]) -> None:
        self.path = path
        self.results = [] if path is None or not path.exists() else _read(path, command)
        self.command = command
        self.place = 0

    def result(self, measure: Callable[[], T]) -> T:
        """Return the next result: the one that is kept, or a new one, which is kept."""
        place, self.place = self.place, self.place + 1
        if place < len(self.results):
            return self.results[place]
        value = measure()
        self.results.append(value)
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            temporary = self.path.with_suffix(".unfinished")
            temporary.write_bytes(pickle.dumps((self.command, self.results)))
            temporary.replace(self.path)
        return value


def _read(path: Path, command: list[str]) -> list:
    written, results = pickle.loads(path.read_bytes())
    if written != command:
        raise ValueError(f"{VARIABLE}: got the journal of {' '.join(written)}, expected this command's; name another")
    return results


def of_environment() -> Journal:
    """Return the journal that the environment names; one that keeps nothing where it names none."""
    named = os.environ.get(VARIABLE)
    return Journal(Path(named) if named else None, sys.argv[1:])
