"""A pack of which half of the trials stop at a tenth of the steps, against one where all go on.

`python -m benchmarks.retiring`. Such a pack has 0.5 x 0.1 + 0.5 = 55 % of the work; what it takes beyond that is what
retiring and compaction cost. A trial that is stopped early is one with fewer steps: both are retired in the same way.
"""

import statistics
from pathlib import Path
from typing import Annotated

import typer

from benchmarks import cases, child, packed, writing
from benchmarks.records import Assignment
from benchmarks.width import trials_of
from welltuned.costs import packing
from welltuned.executors.machine import num_threads
from welltuned.records import Config, Role, TrainJob, Trial

TRIALS, BATCH_SIZE, EARLY = 32, 4, 0.1
AT_MOST = 0.6  # of the time: what the benchmark was set up with
HEADINGS = ("pack", "optimizer steps", "seconds", "of the time")


def jobs(config: Config, num_steps: int) -> dict[str, TrainJob]:
    """Return a pack where all trials go on, and one where every second one ends early."""
    whole = [Trial(each.config.replace(max_steps=num_steps), Role.SELECT) for each in trials_of(config, TRIALS)]
    few = max(1, round(EARLY * num_steps))
    early = [Trial(each.config.replace(max_steps=few), Role.SELECT) for each in whole[::2]]
    packs = {"all go on": whole, f"half stop at {EARLY:.0%}": early + whole[1::2]}
    return {name: packing.make_job(trials, BATCH_SIZE) for name, trials in packs.items()}


def seconds(job: TrainJob, threads: int) -> float:
    """Return the seconds of a pack on a base that is loaded and warm."""
    first = Trial(job.trials[0].config.replace(max_steps=1, order_seed=1), Role.SELECT)
    tasks = (packing.make_job([first], BATCH_SIZE), job)
    return child.call(packed.run, Assignment("packed", tasks, threads)).job_seconds[1]


def main(
    base: Annotated[str, typer.Option()] = cases.Options.base,
    dtype: Annotated[str, typer.Option()] = cases.Options.dtype,
    steps: Annotated[int, typer.Option(min=10, help="Optimizer steps of a trial that goes on.")] = 60,
    repeats: Annotated[int, typer.Option(min=1)] = 3,
    threads: Annotated[int | None, typer.Option(min=1)] = None,
    output: Annotated[Path, typer.Option(help="Results as JSON.")] = Path("runs/benchmark_retiring.json"),
    write: Annotated[Path | None, typer.Option(help="A page to add the results to.")] = None,
) -> None:
    """Time both packs, alternating."""
    num = threads or num_threads()
    samples = steps * BATCH_SIZE
    config = cases.batch(cases.Options(base, dtype, samples), BATCH_SIZE, samples, 1.0).contenders[0].configs[0]
    packs = jobs(config, steps)
    found: dict[str, list[float]] = {name: [] for name in packs}
    for _ in range(repeats):
        for name, job in packs.items():
            found[name].append(seconds(job, num))
    medians = {name: statistics.median(values) for name, values in found.items()}
    whole = next(iter(medians.values()))
    lines = [
        (
            name,
            str(sum(each.config.max_steps or 0 for each in packs[name].trials)),
            f"{value:.1f}",
            f"{value / whole:.0%}",
        )
        for name, value in medians.items()
    ]
    title = f"retiring: {base}, {dtype}, {TRIALS} trials, batch {BATCH_SIZE}, rank 8"
    share = list(medians.values())[1] / whole
    verdict = f"{share:.0%} of the time, aimed at {AT_MOST:.0%} at most; the work is 55 %."
    parts = [writing.shown(title, HEADINGS, lines), verdict]
    print(verdict)
    writing.finish("retiring", "retiring", num, {"seconds": found, "share": share}, parts, output, write)


if __name__ == "__main__":
    typer.run(main)
