"""Memory of 16 trials against 1, both at 4,096 tokens per micro-step: `python -m benchmarks.memory`.

All rows have the same length, so both packs compute exactly as many token slots: 16 trials one row each, or one trial
16 rows. The rows are digits, written here, since no real data has rows of one length.
"""

import json
import random
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from benchmarks import cases, child, packed, writing
from benchmarks.records import Assignment
from benchmarks.width import trials_of
from welltuned import plan
from welltuned.costs import memory, packing
from welltuned.executors.machine import memory_bytes, num_threads
from welltuned.models import base as bases
from welltuned.records import Config, SurveyJob, TrainJob
from welltuned.spec import Spec
from welltuned.survey import survey

WIDTH, TOKENS, STEPS = 16, 4_096, 3  # the peak is reached in the first steps: Adam's moments are there from the start
HELD_OUT = 16  # rows for validation and test
HEADINGS = ("trials", "rows of each", "tokens a micro-step", "peak GiB", "against one")


def write_rows(base: str, num_tokens: int, num_rows: int, file: Path) -> None:
    """Write rows of digits that are `num_tokens` tokens long, half of them prompt; each digit is a token."""
    tokenizer = bases.load_tokenizer(base, None)
    digits = random.Random(0)

    def text(count: int) -> str:
        return "".join(digits.choice("0123456789") for _ in range(count))

    half = num_tokens // 2
    rows = [{"prompt": text(half), "completion": text(num_tokens - half - 1)} for _ in range(num_rows)]
    found = {len(tokenizer(part)["input_ids"]) for part in (rows[0]["prompt"], rows[0]["completion"])}
    if found != {half, num_tokens - half - 1}:
        raise typer.BadParameter(f"got a tokenizer that makes {found} tokens of {half} digits, expected one for each")
    file.write_text("\n".join(json.dumps(row) for row in rows))


def config_of(base: str, dtype: str, rank: int, num_rows: int, file: Path) -> Config:
    """Return a trial on these rows."""
    sections = {
        "name": "memory",
        "model": {"base": base, "dtype": dtype},
        "task": {
            **{"task": "completion", "data_train": [str(file)], "num_train": num_rows},
            **{"num_validation": HELD_OUT, "num_test": HELD_OUT, "max_length": TOKENS},
        },
        "train": {"rank": rank, "batch_size": 1, "num_evaluations": 1, "learning_rate": cases.LEARNING_RATES[0]},
    }
    return plan.expand(Spec.model_validate(sections))[0]


def jobs_of(config: Config) -> dict[int, TrainJob]:
    """Return a pack of one trial and one of 16, which compute as many slots in each of as many steps."""
    jobs: dict[int, TrainJob] = {}
    for width in (1, WIDTH):
        each = WIDTH // width
        trials = trials_of(config.replace(batch_size=each, max_steps=STEPS), width)
        jobs[width] = packing.make_job(trials, each)
    return jobs


def refuse_without_room(config: Config, jobs: dict[int, TrainJob]) -> None:
    """Say how much memory the benchmark needs, and refuse where that is not free: a killed child measures nothing."""
    looked = survey(SurveyJob(plan.survey_key(config), config))
    packs = {width: [trial.config for trial in job.trials] for width, job in jobs.items()}
    needed = max(memory.estimate(packs[width], looked, job.micro_rows).total_bytes for width, job in jobs.items())
    told = f"needs about {needed / writing.GIB:.1f} GiB; {memory_bytes('cpu') / writing.GIB:.1f} GiB can be used"
    print(told)
    if needed > memory_bytes("cpu"):
        raise typer.BadParameter(f"the benchmark {told}; close other programs, or name a smaller base")


def main(
    base: Annotated[str, typer.Option(help="Where SmolLM2 is not given.")] = cases.Options.base,
    dtype: Annotated[str, typer.Option()] = cases.Options.dtype,
    tokens: Annotated[int, typer.Option(min=32, help="Of a row; 16 rows are a micro-step.")] = TOKENS // WIDTH,
    threads: Annotated[int | None, typer.Option(min=1)] = None,
    smollm2: Annotated[Path | None, typer.Option(help="SmolLM2-135M as a .gguf file.")] = None,
    output: Annotated[Path, typer.Option(help="Results as JSON.")] = Path("runs/benchmark_memory.json"),
    write: Annotated[Path | None, typer.Option(help="A page to add the results to.")] = None,
) -> None:
    """Measure the peaks of a pack of 16 and of one trial that computes as many tokens at a time."""
    num = threads or num_threads()
    name, rank = (base, 8) if smollm2 is None else (str(smollm2), 16)
    lines: list[tuple[str, ...]] = []
    peaks: list[int] = []
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / "rows.jsonl"
        write_rows(name, tokens, STEPS * WIDTH + 2 * HELD_OUT, file)
        config = config_of(name, dtype, rank, STEPS * WIDTH, file)
        jobs = jobs_of(config)
        refuse_without_room(config, jobs)
        for width, job in jobs.items():
            found = child.call(packed.run, Assignment("packed", (job,), num))
            peaks.append(found.peak_bytes)
            slots, peak = found.num_padded_tokens / STEPS, found.peak_bytes / writing.GIB
            ratio = f"{peaks[-1] / peaks[0]:.2f} x"
            lines.append((str(width), str(job.micro_rows), f"{slots:,.0f}", f"{peak:.2f}", ratio))
    title = f"memory: {name.rpartition('/')[2]}, {dtype}, rank {rank}"
    parts = [writing.shown(title, HEADINGS, lines)]
    writing.finish("memory", "memory", num, {"peak_bytes": peaks, "lines": lines}, parts, output, write)


if __name__ == "__main__":
    typer.run(main)
