"""`welltuned export`: a trial's adapter as a PEFT folder, or merged into the base model; with a model card."""

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from welltuned.cli._options import Json, StudyFolder
from welltuned.errors import InputError, problem


def command(
    study: StudyFolder,
    trial: Annotated[str, typer.Argument(help='The trial\'s id, or its first characters, or "best".')],
    to: Annotated[Path, typer.Option("--to", help="Folder to write; new or empty.")],
    merged: Annotated[bool, typer.Option("--merged", help="A whole model with the adapter merged into it.")] = False,
    settings: Annotated[
        bool,
        typer.Option("--settings", help="Configuration and rows for TRL, Axolotl and LLaMA-Factory."),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier export that is there.")] = False,
    as_json: Json = False,
) -> None:
    """Write a trial's adapter as a PEFT folder, or as a merged model; or its configuration for another trainer.

    "best" is the fresh-seed rerun (without reruns, the trial) with the lowest validation loss.
    """
    from welltuned.cli._results import best_trial
    from welltuned.cli._text import print_json
    from welltuned.export import export
    from welltuned.study import Study

    trial_id = best_trial(Study(study).results()).trial_id if trial == "best" else trial
    if settings:
        _write_settings(study, trial_id, to, merged, force, as_json)
        return
    done = export(study, trial_id, to, merged, force)
    if as_json:
        print_json(dataclasses.asdict(done) | {"folder": str(done.folder)})
        return
    print(f"wrote trial {done.trial_id} to {done.folder}")
    if done.agreement is not None:
        print(done.agreement.text())


def _write_settings(study: Path, trial_id: str, to: Path, merged: bool, force: bool, as_json: bool) -> None:
    from welltuned.cli._text import print_json
    from welltuned.export import trainers

    if merged:
        raise InputError(problem("--merged", "--settings beside it", "one of the two", "say which, or call it twice"))
    done = trainers.write(study, trial_id, to, force)
    if as_json:
        print_json(dataclasses.asdict(done) | {"folder": str(done.folder)})
        return
    print(f"wrote {', '.join(done.files)} to {done.folder}")
    for name, reason in done.left_out.items():
        print(f"none for {name}: {reason}")
