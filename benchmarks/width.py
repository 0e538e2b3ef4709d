"""Cost against width: the time of a trial in packs of 1, 2, 4 ... 128 of them: `python -m benchmarks.width`."""

import statistics
from pathlib import Path
from typing import Annotated

import typer

from benchmarks import cases, child, packed, writing
from benchmarks.records import Assignment
from welltuned.costs import packing
from welltuned.executors.machine import num_threads
from welltuned.records import Config, Role, Trial

BATCH_SIZE = 4
HEADINGS = ("trials in the pack", "tokens a micro-step", "seconds a trial", "against one alone", "peak GiB")


def trials_of(config: Config, width: int) -> list[Trial]:
    """Return trials that differ in their learning rate and, beyond those, in their seed."""
    rates = cases.LEARNING_RATES
    return [
        Trial(config.replace(learning_rate=rates[place % len(rates)], init_seed=place // len(rates)), Role.SELECT)
        for place in range(width)
    ]


def main(
    widths: Annotated[str, typer.Option(help="Numbers of trials, separated by commas.")] = "1,2,4,8,16,32,64,128",
    base: Annotated[str, typer.Option()] = cases.Options.base,
    dtype: Annotated[str, typer.Option()] = cases.Options.dtype,
    samples: Annotated[int, typer.Option(min=BATCH_SIZE, help="Training rows of a trial.")] = 64,
    repeats: Annotated[int, typer.Option(min=1)] = 3,
    threads: Annotated[int | None, typer.Option(min=1)] = None,
    output: Annotated[Path, typer.Option(help="Results as JSON.")] = Path("runs/benchmark_width.json"),
    write: Annotated[Path | None, typer.Option(help="A page to add the results to.")] = None,
) -> None:
    """Time packs of different widths; every trial takes whole batches of 4 rows, so only N differs."""
    num = threads or num_threads()
    case = cases.batch(cases.Options(base, dtype, samples), BATCH_SIZE, samples, 1.0)
    config = case.contenders[0].configs[0]
    found: dict[int, list] = {int(width): [] for width in widths.split(",")}
    for _ in range(repeats):
        for width, measurements in found.items():
            job = packing.make_job(trials_of(config, width), BATCH_SIZE)
            measurements.append(child.call(packed.run, Assignment("packed", (job,), num)))
    seconds = {width: statistics.median(each.seconds for each in mine) / width for width, mine in found.items()}
    first = next(iter(seconds.values()))
    steps = samples // BATCH_SIZE
    lines = [
        (
            str(width),
            f"{found[width][0].num_padded_tokens / steps:,.0f}",
            f"{value:.3f}",
            f"{value / first:.2f}",
            f"{max(each.peak_bytes for each in found[width]) / writing.GIB:.2f}",
        )
        for width, value in seconds.items()
    ]
    title = f"cost against width: {base}, {dtype}, batch {BATCH_SIZE}, rank 8, {samples} rows a trial"
    parts = [writing.shown(title, HEADINGS, lines)]
    writing.finish("width", "cost against width", num, {"seconds_a_trial": seconds}, parts, output, write)


if __name__ == "__main__":
    typer.run(main)
