"""Time from `welltuned run` to the first optimizer step: `python -m benchmarks.startup`.

The study validates after every step, so its first step is in the store as soon as it is made. The time is that of the
whole program: starting Python, surveying, planning, loading, initialising, and the first step with its validation.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from benchmarks import writing
from welltuned.errors import InputError, StoreError
from welltuned.executors.machine import num_threads
from welltuned.records import Point
from welltuned.store import Store

STUDY = """
name = "startup"
[model]
base = "{base}"
dtype = "{dtype}"
[task]
task = "abacus"
num_train = 2048
num_validation = 16
num_test = 16
[train]
batch_size = 4
num_evaluations = 512
[axes]
learning_rate = {{ grid = "1-2-5", from = 1e-4, to = 1e-2 }}
[search]
seeds = 4
fresh_seeds = 0
"""
POLL_SECONDS, MOST_SECONDS = 0.05, 300.0
HEADINGS = ("run", "seconds to the first step")


def seconds_to_first_step(base: str, dtype: str, threads: int) -> float:
    """Start the program on a new study, wait for its first step, and stop it."""
    with tempfile.TemporaryDirectory() as temporary:
        folder, file = Path(temporary) / "study", Path(temporary) / "study.toml"
        file.write_text(STUDY.format(base=base, dtype=dtype))
        command = [sys.executable, "-m", "welltuned", "run", str(file), "--folder", str(folder)]
        began = time.monotonic()
        process = subprocess.Popen([*command, "--threads", str(threads)], stdout=subprocess.DEVNULL, cwd=temporary)
        try:
            while not has_stepped(folder):
                if process.poll() is not None:
                    raise RuntimeError(f"welltuned run: got exit status {process.returncode} before its first step")
                if time.monotonic() - began > MOST_SECONDS:
                    raise TimeoutError(f"welltuned run: no step within {MOST_SECONDS:.0f} s")
                time.sleep(POLL_SECONDS)
            return time.monotonic() - began
        finally:
            process.terminate()  # an interrupt is ignored where this program itself was started in the background
            process.wait()


def has_stepped(folder: Path) -> bool:
    """Say whether a point after an optimizer step is stored."""
    try:
        with Store.open(folder) as store:
            return any(isinstance(event, Point) and event.step for _, event in store.events("Point"))
    except (InputError, StoreError):  # not there yet, or being made
        return False


def main(
    base: Annotated[str, typer.Option()] = "abacus-small",
    dtype: Annotated[str, typer.Option()] = "bfloat16",
    repeats: Annotated[int, typer.Option(min=1)] = 3,
    threads: Annotated[int | None, typer.Option(min=1)] = None,
    output: Annotated[Path, typer.Option(help="Results as JSON.")] = Path("runs/benchmark_startup.json"),
    write: Annotated[Path | None, typer.Option(help="A page to add the results to.")] = None,
) -> None:
    """Time the way to the first step; the first run warms the caches of the disk and of the compiler."""
    num = threads or num_threads()
    seconds = [seconds_to_first_step(base, dtype, num) for _ in range(repeats + 1)]
    names = ["first", *(f"warm {count}" for count in range(1, repeats + 1))]
    lines = [(name, f"{value:.1f}") for name, value in zip(names, seconds, strict=True)]
    title = f"from run to the first step: {base}, {dtype}"
    parts = [writing.shown(title, HEADINGS, lines)]
    writing.finish("startup", "start", num, {"seconds": seconds}, parts, output, write)


if __name__ == "__main__":
    typer.run(main)
