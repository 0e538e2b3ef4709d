"""Compare a study in a process of its own that ends itself by kill -9 at a named place: SPEC FOLDER PLACE.

The places cover every phase; those between two steps of one function are reached by replacing the second step.
"""

import os
import signal
import sys

from welltuned.records import ExamJob, Graded, Outcome, Retained
from welltuned.store import Store, ledger
from welltuned.study import Options, Started, compare

OUTCOMES = {"selection": 2, "confirmation": 6}  # of 4 trials and 6 reruns
EVENTS = {"grading": (Graded, 2), "retention": (Retained, 3)}


def die(*_: object) -> None:
    """End this process as a power cut would; its worker notices and ends, too."""
    os.kill(os.getpid(), signal.SIGKILL)


def killer(place: str):
    """Return an observer that ends the process at a place which an event marks."""
    seen: list[object] = []

    def observe(notice: object) -> None:
        seen.append(notice)
        kind, number = EVENTS.get(place, (Outcome, OUTCOMES.get(place, 0)))
        if isinstance(notice, kind) and sum(isinstance(one, kind) for one in seen) == number:
            die()
        if place == "exam starts" and isinstance(notice, Started) and isinstance(notice.job, ExamJob):
            die()

    return observe


def main() -> None:
    """Compare, and die where it is asked for."""
    spec, folder, place = sys.argv[1:]
    if place == "read logged here only":  # in the study's store, and not yet in the user's ledger
        ledger.note = die
    elif place == "verdict not yet stored":
        Store.store_verdict = die
    elif place == "verdict just stored":
        store = Store.store_verdict
        Store.store_verdict = lambda self, found: die(store(self, found))
    compare(spec, folder, killer(place), Options(threads=1, memory_bytes=2**31, entry="fake_worker:run"))


if __name__ == "__main__":
    main()
