"""moe-peft 2.0.2, another packed trainer, on one case for the record: `python -m benchmarks.against_moe_peft`.

It needs torch < 2.6 and transformers < 4.47, so an environment of its own: `--install` makes one at `--environment`
(about 6 GB). It pads without a mask in its loss, so the rows are of one length, on which both sides do equal work:
random Llamas of the bundled middle model's shape, the loss over all tokens but the first.
"""

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import torch
import typer
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from benchmarks import child, packed, writing
from benchmarks.records import Assignment
from welltuned import plan
from welltuned.costs import packing
from welltuned.executors.machine import memory_bytes, num_threads
from welltuned.records import Config, Role, SurveyJob, Trial
from welltuned.spec import Spec
from welltuned.survey import survey

PACKAGES = ("moe-peft==2.0.2", "torch<2.6", "transformers<4.47", "numpy<2.3")
SIDE = Path(__file__).parent / "moe_peft_side.py"
VOCAB, TOKENS, HELD_OUT = 135, 64, 32  # words; tokens of every row; rows for validation and test
HEADINGS = ("runner", "trials", "seconds", "trials/h", "tokens/s", "mean first loss", "mean last loss", "speed")


def install(environment: Path) -> None:
    """Make the environment."""
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    subprocess.run([str(environment / "bin" / "pip"), "install", "--quiet", *PACKAGES], check=True)


def write_case(folder: Path, num_rows: int) -> None:
    """Write a random Llama of the middle model's shape, and rows of one length; both sides can read them."""
    torch.manual_seed(0)
    shape = {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4, "num_attention_heads": 4}
    config = LlamaConfig(vocab_size=VOCAB, max_position_embeddings=256, tie_word_embeddings=True, **shape)
    LlamaForCausalLM(config).bfloat16().save_pretrained(folder / "model")
    file = folder / "model" / "config.json"
    older = json.loads(file.read_text()) | {"rope_theta": 10000.0, "torch_dtype": "bfloat16"}  # older names
    file.write_text(json.dumps(older))
    words = {word: number for number, word in enumerate(["<unk>", "<end>", *map(str, range(VOCAB - 2))])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="<end>")
    fast.save_pretrained(folder / "model")
    settings = json.loads((folder / "model" / "tokenizer_config.json").read_text())
    (folder / "model" / "tokenizer_config.json").write_text(
        json.dumps(settings | {"tokenizer_class": "PreTrainedTokenizerFast"})
    )
    numbers = random.Random(0)
    rows = [[str(numbers.randrange(VOCAB - 2)) for _ in range(TOKENS - 1)] for _ in range(num_rows + HELD_OUT)]
    for name, some in (("rows.jsonl", rows[:num_rows]), ("held_out.jsonl", rows[num_rows:])):
        lines = [json.dumps({"prompt": row[0], "completion": " ".join(row[1:])}) for row in some]
        (folder / name).write_text("\n".join(lines))


def configs_of(folder: Path, dtype: str, num_trials: int, num_rows: int, batch_size: int, rank: int) -> list[Config]:
    """Return welltuned's trials on the same rows."""
    held_out = [str(folder / "held_out.jsonl")]
    spec = {
        "name": "moe-peft",
        "model": {"base": str(folder / "model"), "dtype": dtype},
        "task": {
            "task": "completion",
            "data_train": [str(folder / "rows.jsonl")],
            "data_validation": held_out,
            "data_test": held_out,
            "num_train": num_rows,
            "num_validation": 16,
            "num_test": 4,
        },
        "train": {"batch_size": batch_size, "rank": rank, "num_evaluations": 1, "max_grad_norm": "none"},
        "axes": {"learning_rate": [1e-4 * (1 + trial) for trial in range(num_trials)]},
    }
    return list(plan.expand(Spec.model_validate(spec)))


def theirs(environment: Path, folder: Path, dtype: str, sizes: tuple[int, int, int], threads: int) -> dict:
    """Run the other side; what it says in failing is raised."""
    command = [str(environment / "bin" / "python"), "-P", str(SIDE), str(folder), dtype, *map(str, sizes), str(threads)]
    settings = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    settings |= {"HF_HUB_OFFLINE": "1", "MOE_PEFT_EXECUTOR_TYPE": "CPU"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=settings)
    if done.returncode:
        raise RuntimeError(f"moe-peft: got exit status {done.returncode}, expected 0:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def ours(configs: list[Config], threads: int) -> tuple[float, list[list[float]]]:
    """Return the seconds and losses of welltuned's packs."""
    looked = survey(SurveyJob(plan.survey_key(configs[0]), configs[0]))
    jobs = packing.pack([Trial(config, Role.SELECT) for config in configs], looked, memory_bytes("cpu"))
    found = child.call(packed.run, Assignment("packed", jobs, threads))
    return found.seconds, list(found.losses.values())


def main(
    environment: Annotated[Path, typer.Option(help="Folder of moe-peft's own environment.")],
    make: Annotated[bool, typer.Option("--install", help="Make the environment first.")] = False,
    trials: Annotated[int, typer.Option(min=1)] = 32,
    samples: Annotated[int, typer.Option(min=4, help="Training rows of a trial.")] = 128,
    batch_size: Annotated[int, typer.Option(min=1)] = 4,
    rank: Annotated[int, typer.Option(min=1)] = 8,
    repeats: Annotated[int, typer.Option(min=1)] = 3,
    threads: Annotated[int | None, typer.Option(min=1)] = None,
    output: Annotated[Path, typer.Option(help="Results as JSON.")] = Path("runs/benchmark_moe_peft.json"),
    write: Annotated[Path | None, typer.Option(help="A page to add the results to.")] = None,
) -> None:
    """Time both packed trainers on the same rows, at each precision."""
    if make:
        install(environment)
    num = threads or num_threads()
    seconds: dict[str, list[float]] = {}
    losses: dict[str, list[list[float]]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_case(folder, samples)
        for _ in range(repeats):
            for dtype in ("bfloat16", "float32"):
                name = f"packed ({dtype})"
                took, losses[name] = ours(configs_of(folder, dtype, trials, samples, batch_size, rank), num)
                seconds.setdefault(name, []).append(took)
                name = f"moe-peft ({dtype})"
                found = theirs(environment, folder, dtype, (trials, batch_size, rank), num)
                losses[name] = list(found["losses"].values())
                seconds.setdefault(name, []).append(found["seconds"])
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    best = min(value for name, value in medians.items() if name.startswith("moe-peft"))
    lines = [
        (
            name,
            str(trials),
            f"{value:.1f}",
            f"{3600 * trials / value:,.0f}",
            f"{trials * samples * TOKENS / value:,.0f}",
            f"{statistics.fmean(each[0] for each in losses[name]):.3f}",
            f"{statistics.fmean(each[-1] for each in losses[name]):.3f}",
            f"{best / value:.2f} x",
        )
        for name, value in medians.items()
    ]
    title = f"moe-peft 2.0.2: {trials} LoRA trials, batch {batch_size}, rank {rank}, {samples} rows of {TOKENS} tokens"
    parts = [writing.shown(title, HEADINGS, lines)]
    writing.finish("against_moe_peft", "against moe-peft", num, {"seconds": seconds}, parts, output, write)


if __name__ == "__main__":
    typer.run(main)
