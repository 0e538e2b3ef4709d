"""`welltuned export`: a trial's adapter as a PEFT folder, or merged into the base model."""

from pathlib import Path
from typing import Annotated

import typer

from welltuned.cli._options import Json, StudyFolder


def command(
    study: StudyFolder,
    trial: Annotated[str, typer.Argument(help='The trial\'s id, or its first characters, or "best".')],
    to: Annotated[Path, typer.Option("--to", help="Folder to write; new or empty.")],
    form: Annotated[str, typer.Option("--form", help='"peft", or "merged" into the base model.')] = "peft",
    as_json: Json = False,
) -> None:
    """Write a trial's adapter as a PEFT folder.

    "best" is the fresh-seed rerun (without reruns, the trial) with the lowest validation loss.
    """
    from welltuned.cli._results import best_trial
    from welltuned.cli._text import print_json
    from welltuned.export import export
    from welltuned.study import Study

    trial_id = best_trial(Study(study).results()).trial_id if trial == "best" else trial
    folder = export(study, trial_id, to, form)
    if as_json:
        print_json({"trial_id": trial_id, "folder": str(folder), "form": form})
    else:
        print(f"wrote trial {trial_id} to {folder}")
