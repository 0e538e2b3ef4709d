"""Greedy answers of many adapters, packed, against `generate` in turn: `python -m benchmarks.generation`.

Every adapter writes the same number of tokens after the same prompts, so nobody saves work by ending early. In turn
means PEFT's model or the adapter merged into the weights, whichever is faster at its best precision, batch size and
cache; the time to merge counts.
"""

import copy
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from benchmarks import cases, child, peft_side, work, writing
from benchmarks.records import Setting
from welltuned import rng
from welltuned.evaluate.generate import greedy
from welltuned.executors.machine import num_threads, peak_bytes
from welltuned.methods import lora
from welltuned.models import base as bases
from welltuned.packing.linear import PackedModel
from welltuned.packing.state import assemble
from welltuned.records import Config, Role, Trial

UP_SCALE = 0.02  # of the adapters' random B, so that each adapter answers in its own way; assumed
NOTHING = -1  # an end token that no model writes
HEADINGS = ("generation", "adapters measured", "tok/s", "peak GiB", "speed")
TRIED = ("in turn", "tok/s")
SHORT_TOKENS = 16  # in the pass that chooses how to generate in turn


@dataclass(frozen=True)
class Manner:
    """How `generate` is called in turn."""

    merged: bool
    dtype: str
    batch_size: int
    cache: str  # "dynamic" | "static"

    def text(self) -> str:
        return f"{'merged' if self.merged else 'PEFT'}, {self.dtype}, batch {self.batch_size}, {self.cache} cache"


@dataclass(frozen=True)
class Answers:
    """What a child wrote: tokens by adapter and prompt, and what it took once the base was loaded."""

    ids: list[list[list[int]]]
    seconds: float
    peak_bytes: int

    @property
    def tokens_per_second(self) -> float:
        return sum(len(ids) for prompts in self.ids for ids in prompts) / self.seconds


def packed(configs: Sequence[Config], num_prompts: int, num_tokens: int, threads: int) -> Answers:
    """Generate with all adapters at once."""
    torch.set_num_threads(threads)
    first = configs[0]
    model = PackedModel(bases.load(first.base, first.revision, first.dtype, first.target_modules))
    trials = [Trial(config, Role.SELECT) for config in configs]
    states = [{site: factors(config, site, *model.base.shape(site)) for site in model.base.sites} for config in configs]
    prompts = read_prompts(first, num_prompts)
    pad_id = model.base.tokenizer.eos_token_id
    start = time.perf_counter()
    ids = greedy(model, assemble(model.base, trials, states), prompts, num_tokens, NOTHING, pad_id)
    return Answers(ids, time.perf_counter() - start, peak_bytes())


def in_turn(configs: Sequence[Config], num_prompts: int, num_tokens: int, threads: int, manner: Manner) -> Answers:
    """Generate with one adapter after the other."""
    torch.set_num_threads(threads)
    attention = "eager" if manner.dtype == "bfloat16" else "sdpa"
    base = peft_side.load_model(configs[0], Setting("", manner.dtype, attention)).eval()
    prompts = read_prompts(configs[0], num_prompts)
    seconds = 0.0
    found = []
    for config in configs:
        wrapped = peft_side.with_adapter(copy.deepcopy(base) if manner.merged else base, config)
        for site, layer in peft_side.adapted(wrapped):
            num_out, num_in = layer.get_submodule("base_layer").get_parameter("weight").shape
            state = factors(config, site, num_out, num_in)
            with torch.no_grad():
                layer.lora_A["default"].get_parameter("weight").copy_(state["A"])
                layer.lora_B["default"].get_parameter("weight").copy_(state["B"])
        start = time.perf_counter()
        model = wrapped.merge_and_unload() if manner.merged else wrapped
        found.append([ids for part in _generate(model.eval(), prompts, num_tokens, manner) for ids in part])
        seconds += time.perf_counter() - start
        if not manner.merged:
            wrapped.unload()
    return Answers(found, seconds, peak_bytes())


def _generate(model, prompts: Sequence[np.ndarray], num_tokens: int, manner: Manner) -> Iterator[list[list[int]]]:
    for first in range(0, len(prompts), manner.batch_size):
        part = prompts[first : first + manner.batch_size]
        longest = max(len(prompt) for prompt in part)
        ids = torch.zeros(len(part), longest, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(part):
            ids[row, longest - len(prompt) :] = torch.from_numpy(prompt.astype(np.int64))
            mask[row, longest - len(prompt) :] = 1
        with torch.no_grad():
            whole = model.generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=num_tokens,
                do_sample=False,
                eos_token_id=None,
                pad_token_id=0,
                cache_implementation="static" if manner.cache == "static" else None,
            )
        yield whole[:, longest:].tolist()


def factors(config: Config, site: str, num_out: int, num_in: int) -> dict[str, torch.Tensor]:
    """Return an adapter's factors at a site: the same for both sides, other ones for each adapter."""
    generator = torch.Generator().manual_seed(rng.seed_of(0, "benchmark", config.init_seed, site))
    down = lora.init(torch.empty(num_out, num_in), None, config.rank, config.scaling, generator)["A"]
    return {"A": down, "B": UP_SCALE * torch.randn(num_out, config.rank, generator=generator)}


def read_prompts(config: Config, num_prompts: int) -> list[np.ndarray]:
    """Return the prompts of the first training rows."""
    rows = work.training_rows([config])
    pairs = zip(rows.token_ids, rows.prompt_lengths, strict=True)
    return [np.asarray(ids[:length]) for ids, length in pairs][:num_prompts]


def best_manner(config: Config, num_prompts: int, threads: int) -> tuple[Manner, dict[str, float]]:
    """Choose form and precision, then batch size, then cache, each time the fastest; return tokens/s of all tried."""
    rates: dict[str, float] = {}

    def fastest(manners: list[Manner]) -> Manner:
        for manner in manners:
            if manner.text() not in rates:
                answers = child.call(in_turn, [config], num_prompts, SHORT_TOKENS, threads, manner)
                rates[manner.text()] = answers.tokens_per_second
        return max(manners, key=lambda manner: rates[manner.text()])

    forms = [Manner(merged, dtype, 64, "dynamic") for merged in (False, True) for dtype in ("float32", "bfloat16")]
    best = fastest(forms)
    best = fastest([best, *(replace(best, batch_size=size) for size in (16, 32))])
    return fastest([best, replace(best, cache="static")]), rates


def same_share(one: list[list[list[int]]], other: list[list[list[int]]]) -> float:
    """Return the share of tokens that are equal, over the adapters that both have."""
    pairs = [
        (mine, theirs)
        for ours, others in zip(one, other, strict=False)
        for ids, more in zip(ours, others, strict=True)
        for mine, theirs in zip(ids, more, strict=True)
    ]
    return sum(mine == theirs for mine, theirs in pairs) / len(pairs)


def main(
    adapters: Annotated[int, typer.Option(min=1)] = 16,
    prompts: Annotated[int, typer.Option(min=4, help="As many as a batch at the least.")] = 64,
    tokens: Annotated[int, typer.Option(min=1, help="Written after every prompt.")] = 64,
    measured: Annotated[int, typer.Option(min=1, help="Adapters that generate in turn.")] = 2,
    repeats: Annotated[int, typer.Option(min=1)] = 3,
    base: Annotated[str, typer.Option(help="Where SmolLM2 is not given.")] = cases.Options.base,
    dtype: Annotated[str, typer.Option(help="Of welltuned's base.")] = cases.Options.dtype,
    threads: Annotated[int | None, typer.Option(min=1)] = None,
    smollm2: Annotated[Path | None, typer.Option(help="SmolLM2-135M as a .gguf file.")] = None,
    gsm8k: Annotated[Path | None, typer.Option(help="GSM8K's training rows as .jsonl.")] = None,
    output: Annotated[Path, typer.Option(help="Results as JSON.")] = Path("runs/benchmark_generation.json"),
    write: Annotated[Path | None, typer.Option(help="A page to add the results to.")] = None,
) -> None:
    """Time packed generation against `generate` in turn."""
    num = threads or num_threads()
    case = cases.make("batch-4" if smollm2 is None else "smollm2", cases.Options(base, dtype, prompts, smollm2, gsm8k))
    if isinstance(case, str):
        raise typer.BadParameter(case)
    first = case.contenders[0].configs[0]
    configs = [first.replace(init_seed=seed) for seed in range(adapters)]
    manner, rates = best_manner(first, prompts, num)
    ours, theirs = [], []
    for _ in range(repeats):
        ours.append(child.call(packed, configs, prompts, tokens, num))
        theirs.append(child.call(in_turn, configs[:measured], prompts, tokens, num, manner))
    lines = rows((f"packed ({dtype})", ours), (f"in turn ({manner.text()})", theirs))
    same = same_share(ours[0].ids, theirs[0].ids)
    note = f"{same:.1%} of the tokens are the same on both sides."
    tried = [(name, f"{rate:,.0f}") for name, rate in rates.items()]
    title = f"{first.base.rpartition('/')[2]}, {adapters} adapters x {prompts} prompts x {tokens} tokens"
    writing.show(f"in turn, {SHORT_TOKENS} tokens", TRIED, tried)
    parts = [writing.shown(title, HEADINGS, lines), note, writing.markdown(TRIED, tried)]
    print(note)
    results = {"rows": lines, "tried": rates, "same_share": same}
    writing.finish("generation", "packed generation", num, results, parts, output, write)


def rows(*sides: tuple[str, Sequence[Answers]]) -> list[tuple[str, ...]]:
    """Return a line for each side; the last one is what they are compared with."""
    medians = [statistics.median(answers.tokens_per_second for answers in found) for _, found in sides]
    return [
        (
            name,
            str(len(found[0].ids)),
            f"{rate:,.0f}",
            f"{max(answers.peak_bytes for answers in found) / writing.GIB:.2f}",
            f"{rate / medians[-1]:.2f} x",
        )
        for (name, found), rate in zip(sides, medians, strict=True)
    ]


if __name__ == "__main__":
    typer.run(main)
