"""Memory of 16 trials against 1, both at 4,096 tokens per micro-step: `python -m benchmarks.memory`."""

from pathlib import Path
from typing import Annotated

import typer

from benchmarks import cases, child, packed, work, writing
from benchmarks.records import Assignment
from benchmarks.width import trials_of
from welltuned.costs import packing
from welltuned.executors.machine import num_threads

WIDTH, TOKENS, STEPS = 16, 4_096, 3  # the peak is reached in the first steps: Adam's moments are there from the start
HEADINGS = ("trials", "rows of each", "tokens a micro-step", "peak GiB", "against one")


def main(
    base: Annotated[str, typer.Option(help="Where SmolLM2 is not given.")] = cases.Options.base,
    dtype: Annotated[str, typer.Option()] = cases.Options.dtype,
    threads: Annotated[int | None, typer.Option(min=1)] = None,
    smollm2: Annotated[Path | None, typer.Option(help="SmolLM2-135M as a .gguf file.")] = None,
    gsm8k: Annotated[Path | None, typer.Option(help="GSM8K's training rows as .jsonl.")] = None,
    output: Annotated[Path, typer.Option(help="Results as JSON.")] = Path("runs/benchmark_memory.json"),
    write: Annotated[Path | None, typer.Option(help="A page to add the results to.")] = None,
) -> None:
    """Measure the peaks of a pack of 16 and of one trial that computes as many tokens at a time."""
    num = threads or num_threads()
    options = cases.Options(base, dtype, 512, smollm2, gsm8k)
    case = cases.make("batch-4" if smollm2 is None else "smollm2", options)
    if isinstance(case, str):
        raise typer.BadParameter(case)
    first = case.contenders[0].configs[0]
    rows = work.training_rows([first])
    mean_tokens = sum(len(ids) for ids in rows.token_ids) / len(rows.token_ids)
    each = max(1, round(TOKENS / (WIDTH * mean_tokens)))
    config = first.replace(batch_size=WIDTH * each, num_train=min(len(rows.token_ids), STEPS * WIDTH * each))
    lines, peaks = [], []
    for width in (1, WIDTH):
        job = packing.make_job(trials_of(config, width), WIDTH * each // width)
        found = child.call(packed.run, Assignment("packed", (job,), num))
        num_micro_steps = -(-config.num_train // job.micro_rows)
        peaks.append(found.peak_bytes)
        slots = f"{found.num_padded_tokens / num_micro_steps:,.0f}"
        peak = f"{found.peak_bytes / writing.GIB:.2f}"
        lines.append((str(width), str(job.micro_rows), slots, peak, f"{peaks[-1] / peaks[0]:.2f} x"))
    title = f"memory: {first.base.rpartition('/')[2]}, {dtype}, rank {first.rank}"
    writing.show(title, HEADINGS, lines)
    parts = [f"### {title}", writing.markdown(HEADINGS, lines)]
    writing.finish("memory", "memory", num, {"peak_bytes": peaks}, parts, output, write)


if __name__ == "__main__":
    typer.run(main)
