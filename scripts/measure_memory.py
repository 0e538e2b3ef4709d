"""Peak memory of packs, predicted and measured: `python scripts/measure_memory.py`, or with `--base` and `--data`.

Every case trains a pack of random Llama models (no download) in a worker process of its own, as a study does, and
compares the largest resident size that the process had with `costs.memory.estimate`. What the constants of
`costs/memory.py` say to be measured was measured so, on CASES. CHECKS are other sizes, which nothing was fitted to:
`--check` measures these, and `--write PAGE` adds the table to a page.
"""

import argparse
import dataclasses
import itertools
import json
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from welltuned import plan as plans
from welltuned.costs import memory, packing
from welltuned.executors import machine
from welltuned.executors.inline import Inline
from welltuned.records import Config, Job, JobEnd, JobLost, Outcome, Role, Runtime, Survey, SurveyJob, Trial
from welltuned.spec import Spec

NUM_STEPS = 3  # optimizer steps of each trial: the peak is reached in the first that has moments
HEADINGS = ("pack", "predicted MiB", "measured MiB", "from", "to", "error")
LARGEST_ERROR = 0.15  # of the prediction, relative to what was measured


@dataclass(frozen=True)
class Case:
    """One pack: the shape of the model, the length of the rows, and how many of them train together."""

    hidden: int
    inner: int  # of the MLP
    layers: int
    heads: int
    kv_heads: int
    vocab: int
    tokens: int  # of the longest row
    dtype: str
    method: str
    rank: int
    num_trials: int
    micro_rows: int
    quantization: str = "none"
    runs: str = "plain"  # or "compiled", "recomputed", "compiled, recomputed"

    def name(self) -> str:
        """Return the case in a few words."""
        model = f"{self.layers} x {self.hidden}/{self.inner}, {self.heads}/{self.kv_heads} heads, V {self.vocab}"
        rows = f"N {self.num_trials}, m {self.micro_rows}, T {self.tokens}"
        held = self.dtype if self.quantization == "none" else f"{self.quantization} {self.dtype}"
        return f"{model}, {held}, {self.method} r {self.rank}, {rows}, {self.runs}"


SMALL = Case(64, 172, 3, 2, 2, 512, 64, "float32", "lora", 8, 16, 4)
MIDDLE = Case(256, 688, 4, 4, 4, 2048, 128, "float32", "lora", 16, 16, 4)
LARGE = Case(576, 1536, 12, 9, 3, 49152, 256, "bfloat16", "lora", 16, 8, 2)
CASES = (
    SMALL,
    dataclasses.replace(SMALL, num_trials=64, micro_rows=2),
    MIDDLE,
    dataclasses.replace(MIDDLE, dtype="bfloat16"),
    dataclasses.replace(MIDDLE, dtype="bfloat16", method="pissa", rank=64),
    dataclasses.replace(MIDDLE, dtype="bfloat16", num_trials=32, micro_rows=1, rank=64),
    dataclasses.replace(MIDDLE, method="full", num_trials=16, micro_rows=1),
    dataclasses.replace(MIDDLE, dtype="bfloat16", method="full", num_trials=32, micro_rows=1),
    LARGE,
    dataclasses.replace(LARGE, dtype="float32"),
    dataclasses.replace(LARGE, num_trials=16, micro_rows=1),
    dataclasses.replace(LARGE, num_trials=1, micro_rows=16),
    dataclasses.replace(LARGE, num_trials=2, micro_rows=2, tokens=1024),
    dataclasses.replace(LARGE, num_trials=16, micro_rows=1, rank=128, tokens=64),
    dataclasses.replace(LARGE, method="pissa", num_trials=16, micro_rows=1, rank=32),
    Case(1024, 2816, 8, 16, 8, 32000, 256, "bfloat16", "lora", 32, 4, 2),
)

# Sizes, ranks, m and ways to run that no constant was fitted to.
WIDE = Case(384, 1024, 6, 6, 2, 8192, 192, "bfloat16", "lora", 24, 6, 3)
DEEP = Case(192, 512, 16, 3, 3, 4096, 96, "float32", "lora", 4, 24, 2)
CHECKS = (
    WIDE,
    dataclasses.replace(WIDE, dtype="float32", num_trials=10, micro_rows=1),
    dataclasses.replace(WIDE, method="pissa", rank=48),
    dataclasses.replace(WIDE, method="dora", num_trials=12, micro_rows=1),
    dataclasses.replace(WIDE, runs="recomputed", num_trials=12),
    dataclasses.replace(WIDE, runs="compiled"),
    dataclasses.replace(WIDE, runs="compiled", num_trials=16),
    dataclasses.replace(WIDE, runs="compiled, recomputed", num_trials=12),
    dataclasses.replace(WIDE, quantization="int8"),
    DEEP,
    dataclasses.replace(DEEP, dtype="bfloat16", rank=96, num_trials=8),
    dataclasses.replace(DEEP, runs="compiled"),
    Case(768, 2048, 8, 12, 4, 16384, 160, "bfloat16", "lora", 32, 8, 2),
    Case(1536, 4096, 6, 12, 4, 32000, 128, "bfloat16", "lora", 16, 2, 1, "int8"),
    Case(1536, 4096, 6, 12, 4, 32000, 128, "bfloat16", "lora", 16, 2, 1),
)


def write_model(case: Case, folder: Path) -> None:
    """Write a random Llama whose tokenizer knows one word for each token."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    config = LlamaConfig(
        vocab_size=case.vocab,
        hidden_size=case.hidden,
        intermediate_size=case.inner,
        num_hidden_layers=case.layers,
        num_attention_heads=case.heads,
        num_key_value_heads=case.kv_heads,
        max_position_embeddings=max(2048, case.tokens),
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).to(vars(torch)[case.dtype]).save_pretrained(folder)
    words = {word: number for number, word in enumerate(["<unk>", "<end>", *map(str, range(case.vocab - 2))])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="<end>").save_pretrained(folder)


def write_rows(case: Case, file: Path, num_rows: int) -> None:
    """Write rows of 3/4 to 4/4 of the length, the first of all of it, half of each its completion."""
    numbers = random.Random(0)
    lines = []
    for row in range(num_rows):
        num_words = case.tokens - 1 if row == 0 else numbers.randint(3 * case.tokens // 4, case.tokens - 1)
        words = [str(numbers.randrange(case.vocab - 2)) for _ in range(num_words)]
        half = num_words // 2
        lines.append(json.dumps({"prompt": " ".join(words[:half]), "completion": " ".join(words[half:])}))
    file.write_text("\n".join(lines))


def batch_size_of(case: Case) -> int:
    """Return a batch size of 4 or more whose micro-steps all have m rows: the rows of a batch are split evenly."""
    return case.micro_rows * -(-4 // case.micro_rows)


def configs_of(case: Case, base: str, task: dict, num_rows: int) -> list[Config]:
    """Return the pack's configurations: equal ones but for their learning rates."""
    batch_size = batch_size_of(case)
    spec = {
        "name": "memory",
        "model": {"base": base, "dtype": case.dtype, "quantization": case.quantization},
        "task": {"num_train": num_rows, "num_validation": 16, "num_test": 4, "max_length": case.tokens, **task},
        "train": {"max_steps": NUM_STEPS, "batch_size": batch_size, "method": case.method, "rank": case.rank},
        "axes": {"learning_rate": [1e-5 * (1 + trial) for trial in range(case.num_trials)]},
    }
    return list(plans.expand(Spec.model_validate(spec)))


def events(job: Job, runtime: Runtime) -> Iterator:
    """Run a job in a process of its own."""
    with Inline(runtime) as executor:
        yield from executor.run(job)


@dataclass(frozen=True)
class Measured:
    """A pack and the largest resident sizes of its processes; fewer than asked for where it was lost."""

    configs: list[Config]
    survey: Survey
    peaks: list[int]
    seconds: float


def measure(case: Case, folder: Path, base: str | None, data: str | None, repeats: int) -> Measured:
    """Train a pack in a worker process, so many times."""
    num_rows = batch_size_of(case) * NUM_STEPS  # every row is read, the longest too
    if base is None:
        write_model(case, folder / "model")
        write_rows(case, folder / "rows.jsonl", num_rows + 20)
    rows = {"task": "completion", "data_train": [str(folder / "rows.jsonl")]}
    task = rows if data is None else {"task": "gsm8k", "data_train": [data]}
    configs = configs_of(case, base or str(folder / "model"), task, num_rows)
    runtime = Runtime("cpu", machine.num_threads(), 1e9, str(folder / "blobs"))
    (survey,) = (event for event in events(SurveyJob("survey", configs[0]), runtime) if isinstance(event, Survey))
    job = packing.make_job([Trial(config, Role.SELECT) for config in configs], case.micro_rows)
    job = dataclasses.replace(job, compiled="compiled" in case.runs, recompute="recomputed" in case.runs)
    began, peaks = time.monotonic(), []
    for event in itertools.chain.from_iterable(events(job, runtime) for _ in range(repeats)):
        if isinstance(event, JobLost):
            print("   lost:", event.reason)
        if isinstance(event, JobEnd):
            peaks.append(event.peak_bytes)
        if isinstance(event, Outcome) and event.num_steps < NUM_STEPS:
            print("   a trial ended early:", event.reason)
    return Measured(configs, survey, peaks, time.monotonic() - began)


def show(number: int, case: Case, measured: Measured) -> tuple[str, ...]:
    """Print what was predicted, term by term, and what was measured; return a line of the table."""
    how = {"recompute": "recomputed" in case.runs, "compiled": "compiled" in case.runs}
    predicted = memory.estimate(measured.configs, measured.survey, case.micro_rows, **how)
    total, peaks = predicted.total_bytes, measured.peaks
    print(f"{number:2} {case.name()}, {measured.seconds:.0f} s")
    found = ("lost", "", "", "")
    if peaks:
        median = statistics.median(peaks)
        error = total / median - 1
        found = (*(f"{each / 2**20:,.0f}" for each in (median, min(peaks), max(peaks))), f"{error:+.1%}")
    told = "lost" if not peaks else f"measured {found[0]} ({found[1]} to {found[2]}): {found[3]}"
    verdict = "  <-- off by more than it should be" if peaks and abs(error) > LARGEST_ERROR else ""
    print(f"   predicted {total / 2**20:,.0f} MiB, {told}{verdict}")
    terms = predicted.terms().items()
    print("   " + ", ".join(f"{name} {value / 2**20:,.0f}" for name, value in terms if value), flush=True)
    return case.name(), f"{total / 2**20:,.0f}", *found


def main() -> None:
    """Measure the cases and print a table, with the terms of each prediction."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", help="a model to use instead of random ones; its shape in the cases is not read")
    parser.add_argument("--data", help="rows of GSM8K for --base")
    parser.add_argument("--check", action="store_true", help="the sizes that nothing was fitted to")
    parser.add_argument("--write", type=Path, help="a page to add the table to")
    parser.add_argument("--only", type=int, nargs="*", help="numbers of the cases")
    parser.add_argument("--repeats", type=int, default=3, help="the median of this many counts (default: 3)")
    parser.add_argument("--case", nargs="*", default=[], metavar="FIELD=VALUE", help="one case, changed from the large")
    arguments = parser.parse_args()
    cases = CHECKS if arguments.check else CASES
    lines: list[tuple[str, ...]] = []
    if arguments.case:
        given = dict(pair.split("=", 1) for pair in arguments.case)
        kinds = {field.name: field.type for field in dataclasses.fields(Case)}
        changes = {name: value if kinds[name] is str else int(value) for name, value in given.items()}
        cases = (dataclasses.replace(LARGE, **changes),)
    for number, case in enumerate(cases):
        if arguments.only is not None and number not in arguments.only:
            continue
        with tempfile.TemporaryDirectory() as folder:
            lines.append(
                show(number, case, measure(case, Path(folder), arguments.base, arguments.data, arguments.repeats))
            )
    if arguments.write is not None:
        rows = (HEADINGS, ("---", *("---:" for _ in HEADINGS[1:])), *lines)
        table = "".join(f"| {' | '.join(row)} |\n" for row in rows)
        arguments.write.write_text(arguments.write.read_text() + "\n" + table)


if __name__ == "__main__":
    main()
