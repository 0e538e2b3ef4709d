"""Packed training side by side with Trainer + PEFT: `python -m benchmarks.packed_vs_peft --case batch-4`.

In one run, alternating, medians over the repeats: the same trials (data, order of rows, batch sizes, ranks, learning
rates, steps, adapters in float32, AdamW, clipping, schedule) by welltuned packed, welltuned one trial at a time,
Trainer + PEFT at its best setting here, and a bare loop with PEFT. Every runner has a process of its own each time, and
its seconds begin when Python's libraries are loaded: loading the base and compiling are inside.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import typer

from benchmarks import cases, child, compare, loop, packed, settings, trainer, work, writing
from benchmarks.cases import Case, Contender
from benchmarks.compare import Compared
from benchmarks.records import Assignment, Measurement, Setting
from benchmarks.settings import Tried
from welltuned import plan
from welltuned.costs import packing
from welltuned.executors.machine import memory_bytes, num_threads
from welltuned.records import Config, Role, Survey, SurveyJob, TrainJob, Trial
from welltuned.survey import survey

RUNNERS = {"packed": packed.run, "alone": packed.run, "trainer": trainer.run, "loop": loop.run}
DEFAULT_CASES = ["batch-4", "batch-16"]
REPEATS, MEASURED = 3, 4


@dataclass
class Run:
    """What is the same for all cases of a run, and the peaks that it has measured."""

    threads: int
    memory_bytes: int
    repeats: int
    measured: int | None
    peaks: dict[str, float] = field(default_factory=dict)

    def measure_peaks(self, precisions: set[str]) -> None:
        """Measure the best large matmul of each precision once more; the best of the run counts."""
        for precision, rate in child.call(work.matmul_peaks, sorted(precisions), self.threads).items():
            self.peaks[precision] = max(rate, self.peaks.get(precision, 0.0))


def measure(task: Assignment) -> Measurement:
    """Run an assignment in a process of its own."""
    return child.call(RUNNERS[task.runner], task)


def measure_within(task: Assignment, seconds: float | None) -> Measurement | None:
    """Run an assignment in a process of its own, which is stopped after these seconds."""
    return child.within(seconds, RUNNERS[task.runner], task)


def assignment(each: Contender, looked: Survey, run: Run, setting: Setting | None) -> Assignment:
    """Return what a contender's child is to do: packs as `welltuned run` plans them, or trials one at a time."""
    if each.runner == "packed":
        trials = [Trial(config, Role.SELECT) for config in each.configs]
        return Assignment("packed", packing.pack(trials, looked, run.memory_bytes), run.threads)
    chosen = [Trial(config, Role.SELECT) for config in cases.measured(each.configs, run.measured)]
    jobs: list[TrainJob] = []
    for trial in chosen:
        jobs += packing.pack([trial], looked, run.memory_bytes)
    return Assignment(each.runner, tuple(jobs), run.threads, setting)


def look(config: Config) -> Survey:
    """Survey a base and its data."""
    return survey(SurveyJob(plan.survey_key(config), config))


def of_loop(setting: Setting) -> Setting:
    """Return the bare loop's setting: Trainer's, without the compiler."""
    return replace(setting, name=setting.name.removesuffix(", torch_compile"), compiled=False)


def run_case(case: Case, run: Run) -> tuple[Compared, list[Tried]]:
    """Measure a case and compare its contenders."""
    first = case.contenders[0].configs[0]
    looked = look(first)
    chosen: dict[str, Setting] = {}
    tried: list[Tried] = []
    if any(each.runner == "trainer" for each in case.contenders):
        best, tried = settings.select(case.contenders[0].configs, run.threads, measure_within)
        chosen = {"trainer": best, "loop": of_loop(best)}
        writing.show(f"Trainer's settings: {case.title}", writing.TRIED, [writing.tried_cells(item) for item in tried])
    tasks = {each.name: assignment(each, looked, run, chosen.get(each.runner)) for each in case.contenders}
    named = {
        each.name: (chosen[each.runner].name, chosen[each.runner].precision)
        if each.runner in chosen
        else (first.dtype, first.dtype)
        for each in case.contenders
    }
    repeats: dict[str, list[Measurement]] = {name: [] for name in tasks}
    for _ in range(run.repeats):
        run.measure_peaks({precision for _, precision in named.values()})
        for name, task in tasks.items():
            repeats[name].append(measure(task))
    configs = {config.id(): config for each in case.contenders for config in each.configs}
    rows = work.training_rows(list(configs.values()))
    works = {name: work.count(config, rows, looked) for name, config in configs.items()}
    trained = {name: [trial.id for trial in task.trials] for name, task in tasks.items()}
    return compare.compare(case, repeats, trained, named, works, run.peaks), tried


def main(
    case: Annotated[list[str], typer.Option(help=f"One of {', '.join(cases.NAMES)}; may be repeated.")] = DEFAULT_CASES,
    base: Annotated[str, typer.Option(help="Base of the abacus cases.")] = cases.Options.base,
    dtype: Annotated[str, typer.Option(help="Of welltuned's base: float32 or bfloat16.")] = cases.Options.dtype,
    samples: Annotated[
        int | None, typer.Option(min=cases.FEWEST_SAMPLES, help="Training rows of a trial. Default: each case's own.")
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="The median of this many counts.")] = REPEATS,
    measured: Annotated[
        int, typer.Option(min=0, help="Trials that a sequential runner trains, scaled to all of them; 0: all.")
    ] = MEASURED,
    threads: Annotated[int | None, typer.Option(min=1, help="Default: all cores.")] = None,
    smollm2: Annotated[Path | None, typer.Option(help="SmolLM2-135M as a .gguf file.")] = None,
    gsm8k: Annotated[Path | None, typer.Option(help="GSM8K's training rows as .jsonl.")] = None,
    output: Annotated[Path, typer.Option(help="Where the results are written as JSON.")] = Path("runs/benchmark.json"),
    write: Annotated[Path | None, typer.Option(help="A page to add the results to: docs/performance.md.")] = None,
) -> None:
    """Time welltuned, packed and alone, against Trainer + PEFT and a bare loop, on the same trials."""
    unknown = sorted(set(case) - set(cases.NAMES))
    if unknown:
        raise typer.BadParameter(f"got {', '.join(unknown)}, expected {', '.join(cases.NAMES)}", param_hint="--case")
    options = cases.Options(base, dtype, samples, smollm2, gsm8k)
    run = Run(threads or num_threads(), memory_bytes("cpu"), repeats, measured or None)
    found, notes = _run_all(case, options, run)
    peaks = {name: rate / 1e9 for name, rate in run.peaks.items()}
    told = "; ".join(f"{name} {rate:,.0f} GFLOP/s" for name, rate in peaks.items())
    method = f"Medians of {repeats}, alternating. Best large matmul in this run: {told}."
    parts = [method, *(writing.case_markdown(one, tried) for one, tried in found), *notes]
    results: dict[str, object] = {"matmul_peak_gflops": peaks, "skipped": notes}
    results["cases"] = [{"case": one, "counts": one.counts, "settings": tried} for one, tried in found]
    writing.finish("packed_vs_peft", "packed against PEFT", run.threads, results, parts, output, write)


def _run_all(names: Sequence[str], options: cases.Options, run: Run) -> tuple[list[tuple[Compared, list[Tried]]], list]:
    """Run the cases one after the other; say which are skipped, and why."""
    found: list[tuple[Compared, list[Tried]]] = []
    notes: list[str] = []
    for name in names:
        case = cases.make(name, options)
        if isinstance(case, str):
            notes.append(f"Skipped {name}: {case}.")
            print(notes[-1])
            continue
        compared, tried = run_case(case, run)
        found.append((compared, tried))
        writing.show(case.title, writing.HEADINGS, [writing.cells(row) for row in compared.rows])
        print(writing.verdict(compared), flush=True)
    return found, notes


if __name__ == "__main__":
    typer.run(main)
