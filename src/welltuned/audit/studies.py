"""Reads a study of our own, from its folder or from a recorded table: it knows which numbers chose and which judged.

Selection trials, in validation NLL, choose; reruns on fresh seeds, in validation NLL or in test accuracy, judge.
"""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path

from welltuned.analysis.runs import ACCURACY, NLL, run_of
from welltuned.audit.columns import role_of
from welltuned.audit.records import GRADED, RERUN, Book, Entry, Request, Side, Unscored
from welltuned.errors import InputError, problem
from welltuned.records import Result, Role, Status
from welltuned.store import Store, recorded
from welltuned.store.store import DATABASE

RECORDED = ".jsonl.gz"


def is_study(path: Path) -> bool:
    """Say whether a path is a study's folder or a recorded study."""
    return (path / DATABASE).is_file() or (path.is_file() and path.name.endswith(RECORDED) and _is_recorded(path))


def read(path: Path, request: Request) -> Book:
    """Read a study. The metric is validation_nll, or what `--column metric=` says."""
    columns = {role_of(role): names for role, names in request.columns.items()}
    metric = columns.pop("metric", (NLL,))[0]
    for role in (*columns, *request.values):
        raise InputError(problem(f"{path}: {role}", "a column", "none, since a study knows its own", "leave it out"))
    if metric not in (NLL, ACCURACY):
        do = f"write --column metric={ACCURACY}"
        raise InputError(problem("--column metric", metric, f"{NLL} or {ACCURACY}", do))
    if path.is_dir():
        with Store.open(path) as store:
            results = store.results()
    else:
        _, results = recorded.read(path)
    return of_study(str(path), results, metric)


def of_study(source: str, results: Sequence[Result], metric: str) -> Book:
    """Make a book of a study's results."""
    choosing = _side(results, NLL, Role.SELECT)
    judging = _side(results, metric, Role.CONFIRM)
    if not choosing.entries:
        raise InputError(problem(source, "a study without a scored trial", "at least one", "run the study first"))
    if metric == ACCURACY and not judging.entries:
        do = f"leave out --column metric={ACCURACY}, or run the study to its end"
        raise InputError(problem(f"{source}: {ACCURACY}", "no graded rerun", "graded reruns", do))
    unscored = [
        Unscored(result.trial_id, result.config.method, result.status.value)
        for result in results
        if result.status in (Status.LOST, Status.STOPPED)
    ]
    return Book(
        source=source,
        choosing=choosing,
        judging=judging if judging.entries else choosing,
        stated=frozenset(("learning_rate", "batch_size", "rank", "seed", "diverged", "split")),
        used=(("metric", metric), ("chosen by", NLL)),
        unscored=tuple(unscored),
        judged_by=GRADED if metric == ACCURACY else RERUN,
    )


def _side(results: Sequence[Result], metric: str, role: Role) -> Side:
    graded = any(result.test_correct is not None for result in results)
    entries = tuple(
        Entry(run, result.trial_id)
        for result in results
        if result.role is role and (run := run_of(result, metric, graded)) is not None
    )
    return Side(entries, metric, metric == ACCURACY, metric == ACCURACY)


def _is_recorded(path: Path) -> bool:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        try:
            head = json.loads(file.readline())
        except (json.JSONDecodeError, UnicodeDecodeError, gzip.BadGzipFile):
            return False
    return isinstance(head, dict) and "welltuned" in head
