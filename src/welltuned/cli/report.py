"""`welltuned report`: build a study's report from what is stored; trains nothing and may be called while it runs."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from welltuned.cli._options import Json, StudyFolder

REBUILD_SECONDS = 30.0  # assumed: the least time between two builds, which take some seconds of the training's cores


def command(
    study: StudyFolder,
    as_json: Json = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Build it again whenever the running study has grown.")
    ] = False,
) -> None:
    """Build the report of a study again."""
    from welltuned.study import Study

    opened = Study(study)
    if not watch:
        _say(opened.report(), as_json)
        return
    try:
        reason = rebuild(study, lambda: _say(opened.report(), as_json))
    except KeyboardInterrupt:
        _remark("no longer watched; the study itself goes on, and the page is as it was built last")
        raise typer.Exit(130) from None
    _remark(reason)


def rebuild(
    folder: Path,
    build: Callable[[], None],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> str:
    """Build whenever the store has grown, at least REBUILD_SECONDS apart and once more at the end; return why it ended.

    A study without a plan has nothing to build from, so one that runs is waited for.
    """
    from welltuned.cli._watch import ending, polls

    stale, built_seconds = False, None
    for poll in polls(folder, sleep):
        stale = stale or poll.changed
        due = built_seconds is None or clock() - built_seconds >= REBUILD_SECONDS
        if stale and (poll.last or (poll.planned and due)):
            build()
            stale, built_seconds = False, clock()
        if poll.last:
            return ending(poll, folder)
    raise AssertionError("the polls end with a last one")


def _say(page: Path, as_json: bool) -> None:
    from welltuned.cli._text import print_json

    if as_json:
        print_json({"report": str(page)})
    else:
        print(f"look at {page}", flush=True)


def _remark(text: str) -> None:
    typer.echo(text, err=True)
