"""`welltuned compare`: a study at equal budgets to its stored verdict; `--oracle`: what test data would have chosen.

The oracle pass is a flag of this verb and no verb of its own, because it asks for the same study and is refused until
this verb has stored its verdict: it can never happen in the same breath.
"""

from typing import Annotated

import typer

from welltuned.cli._options import Device, Folder, Memory, StudyFile, Threads, parse_bytes


def command(
    file: StudyFile,
    folder: Folder = None,
    device: Device = "cpu",
    threads: Threads = None,
    memory: Memory = None,
    oracle: Annotated[
        bool,
        typer.Option("--oracle", help="After the verdict: score every kept adapter on the test data, for the record."),
    ] = False,
) -> None:
    """Compare the methods of a study at equal budgets, and store the verdict.

    It trains the trials that `run` trains, in the same folder, and goes on where either was stopped.
    """
    from welltuned import study as studies
    from welltuned.cli._progress import observer
    from welltuned.cli._results import results_text

    options = studies.Options(device=device, threads=threads, memory_bytes=parse_bytes(memory))
    try:
        with observer() as observe:
            study = (studies.oracle if oracle else studies.compare)(file, folder, observe, options)
    except KeyboardInterrupt:  # what is stored and how to go on has been said
        raise typer.Exit(130) from None
    print(results_text(study.results(), study.declaration()))
    print(f"report: {study.report()}")
