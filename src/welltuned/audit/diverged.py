"""Diverged runs of a table: where they were, and the number that they count with. None is ever dropped.

Some tables list a diverged run like any other; some say only how many of a set of configurations diverged.
"""

import dataclasses
from collections.abc import Collection, Sequence

from welltuned.analysis.runs import Run
from welltuned.audit.records import Entry

Knobs = tuple[float | None, int | None, int | None]  # learning rate, batch size, rank; None: not known
WORDS = ("diverg", "nan", "inf")  # what a status says of a run that diverged


def is_diverged(status: str) -> bool:
    """Say whether a status means that the run diverged.

    >>> is_diverged("Diverged at step 40"), is_diverged("success"), is_diverged("nan")
    (True, False, True)
    """
    words = status.casefold()
    return any(words.startswith(word) for word in WORDS) or WORDS[0] in words


def places(
    rates: Sequence[float], batches: Sequence[int], ranks: Sequence[int], count: int, finished: Collection[Knobs]
) -> list[Knobs]:
    """Return where `count` diverged runs of a set of configurations were, as far as that can be known.

    All of the set, if they are as many; else all that did not finish, if these are as many; else what all share.

    >>> places([1e-3, 3e-3], [128], [1, 4], 3, {(1e-3, 128, 4)})
    [(0.001, 128, 1), (0.003, 128, 1), (0.003, 128, 4)]
    >>> places([3e-3], [128], [1, 4], 3, set())
    [(0.003, 128, None), (0.003, 128, None), (0.003, 128, None)]
    """
    every: list[Knobs] = [
        (rate, batch, rank) for rate in rates or [None] for batch in batches or [None] for rank in ranks or [None]
    ]
    unfinished = [knobs for knobs in every if knobs not in finished]
    for candidates in (every, unfinished):
        if len(candidates) == count:
            return candidates
    rate, batch, rank = (values[0] if len(values) == 1 else None for values in (rates, batches, ranks))
    return [(rate, None if batch is None else int(batch), None if rank is None else int(rank))] * count


def valued(entries: Sequence[Entry], unvalued: Sequence[Entry], higher_is_better: bool, is_share: bool) -> list[Entry]:
    """Give every diverged run that has no number the one it counts with: no item right, or the worst of its problem.

    The worst finished value of the same problem is the kindest number that a diverged run can have; a run whose problem
    has no other is left out here, and the caller must say so.
    """
    worst = min if higher_is_better else max
    by_problem: dict[object, list[float]] = {}
    for entry in entries:
        by_problem.setdefault(entry.run.problem, []).append(entry.run.value)
    found: list[Entry] = []
    for entry in unvalued:
        values = [0.0] if is_share else by_problem.get(entry.run.problem, [])
        if values:
            found.append(dataclasses.replace(entry, run=_with(entry.run, worst(values))))
    return found


def _with(run: Run, value: float) -> Run:
    return dataclasses.replace(run, value=value)
