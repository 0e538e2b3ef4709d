"""`welltuned run`: run a study to its end, or go on with one that was interrupted; ends with a table and a report."""

from pathlib import Path

import typer

from welltuned.cli._options import Device, Folder, Memory, StudyFile, Threads, parse_bytes


def command(
    file: StudyFile,
    folder: Folder = None,
    device: Device = "cpu",
    threads: Threads = None,
    memory: Memory = None,
) -> None:
    """Run a study, or go on with one that was interrupted.

    It may be stopped at any time with Ctrl-C: run the same command again and it goes on.
    """
    study = run_study(file, folder, device, threads, memory)
    print(f"report: {study.report()}")


def run_study(file: Path, folder: Path | None, device: str, threads: int | None, memory: str | None):
    """Run the study of a file under the eyes of the user, print the table of its results, and return it."""
    from welltuned import study as studies
    from welltuned.cli._progress import observer
    from welltuned.cli._results import results_text

    options = studies.Options(device=device, threads=threads, memory_bytes=parse_bytes(memory))
    try:
        with observer() as observe:
            study = studies.run(file, folder, observe, options)
    except KeyboardInterrupt:  # what is stored and how to go on has been said
        raise typer.Exit(130) from None
    print(results_text(study.results(), study.declaration()))
    return study
