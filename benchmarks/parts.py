"""Where a micro-step's time goes: `python -m benchmarks.parts --case batch-4`, as `torch.profiler` sees a packed one.

The first pack that `welltuned run` would plan for a case is made, and compiled if it would be. Micro-steps are timed
without the profiler and then again with it; the profiler's own time of each operation is told by what it is for. The
matmuls are held against the useful operations: what a step would take if nothing but its matmuls were left, as fast as
they run in it, and what it would take if its useful operations ran at the machine's peak.
"""

import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from torch.profiler import ProfilerActivity, profile

from benchmarks import cases, child, packed_vs_peft, work, writing
from welltuned import worker
from welltuned.costs import flops, packing
from welltuned.executors.machine import memory_bytes, num_threads
from welltuned.packing import lines
from welltuned.records import Role, Runtime, Survey, Trial
from welltuned.train.loop import PackRun

OPERATIONS = 25  # printed, those that take longest
WARM = 4  # micro-steps before anything is timed: compiling, and memory that is touched for the first time
HEADINGS = ("part of a micro-step", "ms", "share")
BASE, BATCHED, COPIES, COMPILED, REST = (
    "matmuls with the base's weights",
    "batched matmuls: the adapters' and attention's",
    "copies and gathering",
    "compiled: what lies between the matmuls",
    "everything else: what is not compiled, the optimizer, Python",
)
# The first that is found in an operation's name says what it is for.
PARTS = (
    ("CompiledF", COMPILED),  # whose names end in a hash, of any letters
    ("cpp_fused", COMPILED),  # followed by all that the kernel does
    ("bmm", BATCHED),
    ("mm", BASE),
    ("linear", BASE),
    ("copy", COPIES),
    ("index", COPIES),
    ("gather", COPIES),
    ("scatter", COPIES),
    ("cat", COPIES),
    ("fill", COPIES),
    ("zero", COPIES),
)


@dataclass(frozen=True)
class Found:
    """What was seen of a case's micro-steps."""

    num_trials: int
    micro_rows: int
    num_strands: int  # threads that train some of the trials each
    is_compiled: bool
    milliseconds: float  # of a micro-step without the profiler, the mean
    by_part: Mapping[str, float]  # milliseconds of a micro-step under the profiler, the mean of the strands
    by_operation: Mapping[str, float]  # the same, by operation
    tokens: float  # real ones of a micro-step, the mean of those timed and profiled
    slots: float
    useful_flops: float  # of a micro-step


def part_of(name: str) -> str:
    """Say what an operation of this name is for.

    >>> part_of("aten::addmm") == BASE, part_of("aten::baddbmm") == BATCHED
    (True, True)
    """
    return next((part for piece, part in PARTS if piece in name), REST)


def look(case: cases.Case, threads: int, steps: int) -> Found:
    """Run the first pack of a case for some micro-steps in this process."""
    torch.set_num_threads(threads)
    torch._inductor.config.cpp.enable_kernel_profile = True  # compiled code tells the profiler of what it calls
    configs = case.contenders[0].configs
    surveyed = packed_vs_peft.look(configs[0])
    job = packing.pack([Trial(config, Role.SELECT) for config in configs], surveyed, memory_bytes("cpu"))[0]
    with tempfile.TemporaryDirectory() as blobs:
        runtime = Runtime("cpu", threads, 1e9, blobs)
        model, train, validation = worker.inputs(job, runtime)
        run = PackRun(model, job, train, validation, runtime)
        needed = WARM + 2 * steps
        if run.num_micro_steps < needed:
            raise typer.BadParameter(f"got trials of {run.num_micro_steps} micro-steps, expected at least {needed}")
        _advance(run, WARM)
        seconds = _advance(run, steps) / steps
        everyone = torch.profiler._ExperimentalConfig(profile_all_threads=True)
        with profile(activities=[ProfilerActivity.CPU], experimental_config=everyone) as seen:
            _advance(run, steps)
    by_operation, by_part = defaultdict[str, float](float), defaultdict[str, float](float)
    strands = run.crew.strands
    for event in seen.key_averages():
        by_operation[event.key] += event.self_cpu_time_total / 1e3 / steps / len(strands)
        by_part[part_of(event.key)] += event.self_cpu_time_total / 1e3 / steps / len(strands)
    counted = [_count(run, surveyed, step) for step in range(WARM, needed)]
    tokens, slots, useful = (statistics.fmean(values) for values in zip(*counted, strict=True))
    times = 1e3 * seconds, dict(by_part), dict(by_operation)
    return Found(len(job.trials), job.micro_rows, len(strands), run.compiled, *times, tokens, slots, useful)


def _advance(run: PackRun, steps: int) -> float:
    """Make some micro-steps; return the seconds that they take."""
    began = time.perf_counter()
    for _ in range(steps):
        run.advance()
    return time.perf_counter() - began


def _count(run: PackRun, surveyed: Survey, step: int) -> tuple[float, float, float]:
    """Return the real tokens, the slots and the useful operations of a micro-step."""
    read = np.concatenate([runner.planned(step).rows for runner in run.live])
    tokens, targets = int(run.train.lengths[read].sum()), int(run.train.num_targets[read].sum())
    slots = 0
    for strand in run.crew.strands:
        rows = [runner.planned(step).rows for runner in strand.runners]
        size = lines.needed(run.train, rows, run.joined).num_slots
        slots += size * len(rows) * (1 if run.joined else run.job.micro_rows)
    trained = flops.num_trainable(run.live[0].config, surveyed)
    return tokens, slots, work.useful_flops(surveyed, trained, tokens, targets)


def told(found: Found, peak: float) -> list[str]:
    """Say in sentences what the parts mean; `peak` in operations per second."""
    profiled = sum(found.by_part.values())
    matmuls = found.by_part.get(BASE, 0.0) + found.by_part.get(BATCHED, 0.0)
    useful = 1e3 * found.useful_flops / peak
    how = "compiled" if found.is_compiled else "uncompiled"
    return [
        f"{found.num_trials} trials, {found.micro_rows} rows of each at most, {found.tokens:,.0f} real tokens in "
        f"{found.slots:,.0f} slots, strands: {found.num_strands}, {how}: {found.milliseconds:.0f} ms without the "
        f"profiler, {profiled:.0f} ms with it.",
        f"Its useful operations take {useful:.0f} ms at the peak of a large matmul, {useful / found.milliseconds:.2f} "
        f"of the step; its matmuls themselves take {matmuls:.0f} ms, {matmuls / profiled:.2f} of the step profiled.",
    ]


def main(
    case: Annotated[str, typer.Option(help=f"One of {', '.join(cases.NAMES)}.")] = "batch-4",
    base: Annotated[str, typer.Option(help="Base of the abacus cases.")] = cases.Options.base,
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16.")] = cases.Options.dtype,
    samples: Annotated[int, typer.Option(min=1, help="Training rows of a trial; many, so that blocks compile.")] = 1024,
    steps: Annotated[int, typer.Option(min=1, help="Micro-steps to time, and to profile.")] = 8,
    smollm2: Annotated[Path | None, typer.Option(help="SmolLM2-135M as a .gguf file.")] = None,
    gsm8k: Annotated[Path | None, typer.Option(help="GSM8K's training rows as .jsonl.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Default: all cores.")] = None,
    output: Annotated[Path, typer.Option(help="Results as JSON.")] = Path("runs/benchmark_parts.json"),
    write: Annotated[Path | None, typer.Option(help="A page to add the results to.")] = None,
) -> None:
    """Say where a packed micro-step's time goes."""
    made = cases.make(case, cases.Options(base, dtype, samples, smollm2, gsm8k))
    if isinstance(made, str):
        raise typer.BadParameter(made, param_hint="--case")
    num = threads or num_threads()
    peak = child.call(work.matmul_peaks, [dtype], num)[dtype]
    found = child.call(look, made, num, steps)
    profiled = sum(found.by_part.values())
    rows = [
        (name, f"{spent:.1f}", f"{spent / profiled:.0%}")
        for name, spent in sorted(found.by_part.items(), key=lambda item: -item[1])
    ]
    table = writing.shown(f"a micro-step of {made.title}, {dtype}", HEADINGS, rows)
    says = [f"Best large matmul in this run: {peak / 1e9:,.0f} GFLOP/s.", *told(found, peak)]
    print("\n".join(says))
    for name, spent in sorted(found.by_operation.items(), key=lambda item: -item[1])[:OPERATIONS]:
        print(f"{spent:8.2f} ms  {part_of(name):50} {name}")
    results = {"case": made.name, "found": found, "matmul_peak_gflops": peak / 1e9}
    writing.finish("parts", "where a micro-step's time goes", num, results, [table, *says], output, write)


if __name__ == "__main__":
    typer.run(main)
