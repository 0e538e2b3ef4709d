"""`welltuned show`: where a study stands and its results so far; may be called while it runs."""

import dataclasses
from typing import Annotated

import typer

from welltuned.cli._options import Json, StudyFolder


def command(
    study: StudyFolder,
    trials: Annotated[bool, typer.Option("--trials", help="List every trial with its id.")] = False,
    as_json: Json = False,
) -> None:
    """Show the state of a study and its results so far."""
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
