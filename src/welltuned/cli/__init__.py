"""The command line: one verb per file, imported only when it is called, so that `welltuned --help` is instant.

A verb's file exports `command`, a function with typer annotations. Flags say where and how much (folder, device,
threads, memory); what is studied stands in the study file. Every error that is meant for the user is printed as lines
on stderr and ends with exit status 2; Ctrl-C ends with 130.
"""

import importlib
import os
import sys
from collections.abc import Sequence
from importlib import metadata
from typing import Annotated

import typer

from welltuned.errors import WelltunedError

VERBS = {
    "demo": "Run the main job on the bundled model: three methods, three batch sizes, one report.",
    "init": "Write a commented study file for a model and data.",
    "plan": "Show what a study would do and cost; trains nothing.",
    "run": "Run a study, or go on with one that was interrupted.",
    "compare": "Compare methods at equal budgets, and store the verdict.",
    "tune": "Find the batch size, learning rate and rank for a model and data, and hand over the adapter.",
    "show": "Show the state of a study and its results so far.",
    "report": "Build the report of a study again.",
    "export": "Write a trial's adapter as a PEFT folder, or as a merged model.",
    "advise": "Say what learning rate the rules suggest, with their known errors; trains nothing.",
    "audit": "Say what was tuned for whom in a table of results, and which conclusions survive.",
    "curvature": "Measure how curved the loss is in each method's numbers.",
    "methods": "List the fine-tuning methods, or explain one.",
    "doctor": "Check this machine, or a method on a model of yours.",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave through SystemExit."""
    os.environ["TQDM_DISABLE"] = "1"  # read when tqdm is imported: libraries' bars would write across the program's own
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        typer.main.get_command(_app(given[0] if given else ""))(given, prog_name="welltuned")
    except WelltunedError as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        raise SystemExit(2) from None


def _app(verb: str) -> typer.Typer:
    """Build the command line with the one verb that is called; of the others it knows the name and the summary."""
    app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
    app.callback(help="Fair LoRA studies: every method tuned alike, trials trained together, results with intervals.")(
        _global_options
    )
    for name, summary in VERBS.items():
        command = importlib.import_module(f"welltuned.cli.{name}").command if name == verb else _not_called
        app.command(name, short_help=summary)(command)
    return app


def _version(wanted: bool) -> None:
    if not wanted:
        return
    try:
        print(metadata.version("welltuned"))
    except metadata.PackageNotFoundError:
        print("unknown: welltuned is run from its sources without being installed")
    raise typer.Exit


def _global_options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_version)
    ] = False,
) -> None:
    del version  # acted on by its callback


def _not_called() -> None:
    raise AssertionError("a verb is loaded when it is called")
