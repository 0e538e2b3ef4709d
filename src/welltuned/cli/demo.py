"""`welltuned demo`: the main job on the bundled model, from the study file that ships with the package."""

from pathlib import Path

from welltuned.cli._options import Device, Folder, Memory, Threads

NAME = "demo.toml"


def command(
    folder: Folder = None,
    device: Device = "cpu",
    threads: Threads = None,
    memory: Memory = None,
) -> None:
    """Run the main job on the bundled model: three methods, three batch sizes, one report."""
    from welltuned.cli.run import run_study

    study = run_study(study_file(), folder, device, threads, memory)
    print(f"look at {study.report()}")


def study_file() -> Path:
    """Return the demo's study file: beside this file in an installed package, in studies/ in a checkout."""
    installed = Path(__file__).with_name(NAME)
    return installed if installed.is_file() else Path(__file__).parents[3] / "studies" / NAME
