"""`welltuned show`: where a study stands and its results so far; on a terminal it follows a study that runs."""

import dataclasses
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from welltuned.cli._options import Json, StudyFolder

if TYPE_CHECKING:
    from rich.console import Group


def command(
    study: StudyFolder,
    trials: Annotated[bool, typer.Option("--trials", help="List every trial with its id.")] = False,
    as_json: Json = False,
    once: Annotated[bool, typer.Option("--once", help="Print it once, though the study runs.")] = False,
) -> None:
    """Show the state of a study and its results so far.

    On a terminal, a study that runs is followed until it ends; Ctrl-C ends the view and not the study.
    """
    interrupted = False
    if sys.stdout.isatty() and not (once or trials or as_json):
        try:
            _follow_on_terminal(study)
        except KeyboardInterrupt:
            interrupted = True
    _print(study, trials, as_json)
    if interrupted:
        print("the view was ended, the study was not: call it again to look on")
        raise typer.Exit(130)


def follow(
    folder: Path,
    draw: Callable[["Group"], None],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Draw where a study stands at every poll, until it is finished or nobody runs it any more."""
    from welltuned.cli._standing import picture, read
    from welltuned.cli._watch import polls
    from welltuned.store import Store

    standing, changed_seconds = None, clock()
    for poll in polls(folder, sleep):
        if poll.last:
            return
        if standing is None or poll.changed:
            with Store.open(folder) as store:
                standing, changed_seconds = read(store), clock()
        draw(picture(standing, clock() - changed_seconds))


def _follow_on_terminal(folder: Path) -> None:
    from rich.live import Live

    with Live(auto_refresh=False, transient=True) as live:
        follow(folder, lambda drawn: live.update(drawn, refresh=True))


def _print(study: Path, trials: bool, as_json: bool) -> None:
    from welltuned.analysis.table import trial_rows
    from welltuned.cli._results import results_text, trials_text
    from welltuned.cli._text import print_json
    from welltuned.study import Study

    opened = Study(study)
    counts, results = opened.counts(), opened.results()
    if as_json:
        print_json(
            {
                "name": opened.name,
                "folder": str(opened.folder),
                "counts": dataclasses.asdict(counts),
                "trials": trial_rows(results),
            }
        )
        return
    print(f"{opened.name} in {opened.folder}")
    print(
        f"{counts.num_trials - counts.num_open} of {counts.num_trials} trials known so far have ended: "
        f"{counts.num_finished} finished, {counts.num_diverged} diverged, {counts.num_stopped} stopped, "
        f"{counts.num_lost} lost; {counts.num_graded} graded on the test split"
    )
    if not results:
        print("no trial has ended yet")
        return
    print(results_text(results, opened.declaration()))
    if trials:
        print(f"\n{trials_text(results, opened.declaration())}")
    else:
        print(f"every trial with its id: welltuned show {study} --trials")
