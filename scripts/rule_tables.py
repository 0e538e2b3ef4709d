"""Best learning rates of published tables and of our recorded surfaces, as the rules see them: a setting and a rate.

Published tables lie outside of the project (their folder is an argument); a table that is absent is left out, and
said so. `split` is "development" where a constant of `transfer/` was fitted to the cell, else "held out".
"""

import csv
import math
import tomllib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from welltuned.analysis import cells, optimum
from welltuned.records import Config, Result
from welltuned.store import recorded
from welltuned.transfer.setting import Setting
from welltuned.transfer.starts import FULL

ROOT = Path(__file__).parents[1]
RECORDED = ROOT / "tests" / "recorded"
DEVELOPMENT, HELD_OUT = "development", "held out"
SMALL, LARGE = "abacus", "published"  # the two scales of model size


@dataclass(frozen=True)
class Cell:
    """A measured optimum: the best learning rate at a setting."""

    table: str
    scale: str
    group: str  # what errors are independent between: a model
    split: str
    setting: Setting
    rate: float


# Tinker's sweep: Tulu 3, batch 128, 780 steps, lora_alpha 32 (LoRA Without Regret's). Hidden sizes and model types are
# those of the models' config.json; mixtures of experts are left out, since their layers differ in width and load. The
# constant 0.2 of the muA formula was read off the first seven.
TINKER_DEVELOPMENT = {
    "meta-llama/Llama-3.2-1B": (2048, "llama"),
    "meta-llama/Llama-3.2-3B": (3072, "llama"),
    "meta-llama/Llama-3.1-8B": (4096, "llama"),
    "meta-llama/Llama-3.1-70B": (8192, "llama"),
    "Qwen/Qwen3-4B-Instruct-2507": (2560, "qwen3"),
    "Qwen/Qwen3-8B": (4096, "qwen3"),
    "Qwen/Qwen3-32B": (5120, "qwen3"),
}
TINKER_HELD_OUT = {
    "meta-llama/Llama-3.1-8B-Instruct": (4096, "llama"),
    "meta-llama/Llama-3.3-70B-Instruct": (8192, "llama"),
    "Qwen/Qwen3-8B-Base": (4096, "qwen3"),
    "Qwen/Qwen3.5-4B": (2560, "qwen3_5"),
    "Qwen/Qwen3.5-9B": (4096, "qwen3_5"),
    "Qwen/Qwen3.5-9B-Base": (4096, "qwen3_5"),
    "Qwen/Qwen3.5-27B": (5120, "qwen3_5"),
}
TINKER_SAMPLES = 128 * 780


def tinker(data: Path) -> tuple[Cell, ...]:
    """Return the optimum of every model and rank that the learning rates tried, or divergence, enclose."""
    losses: defaultdict[tuple[str, int], dict[float, float]] = defaultdict(dict)
    with (data / "tinker_sft_sweep" / "sft_sweep.csv").open() as file:
        for row in csv.DictReader(file):
            if row["diverged"] == "0":
                losses[row["model"], int(row["lora_rank"])][float(row["lr"])] = float(row["test_nll"])
                continue
            for rank in row["lora_rank"].split(","):  # a row of diverged runs names all of their rates and ranks
                losses[row["model"], int(rank)] |= dict.fromkeys(map(float, row["lr"].split(",")), math.inf)
    found: list[Cell] = []
    for (model, rank), cell in losses.items():
        facts, split = _tinker_facts(model)
        rate = best_rate(cell)
        if facts is None or rate is None:
            continue
        setting = Setting("lora", rank, "32", 128, facts[0], TINKER_SAMPLES, facts[1])
        found.append(Cell("tinker_sft_sweep", LARGE, model, split, setting, rate))
    return tuple(found)


def _tinker_facts(model: str) -> tuple[tuple[int, str] | None, str]:
    if model in TINKER_DEVELOPMENT:
        return TINKER_DEVELOPMENT[model], DEVELOPMENT
    return TINKER_HELD_OUT.get(model), HELD_OUT


def best_rate(losses: dict[float, float]) -> float | None:
    """Return the best rate of a sweep: the parabola's vertex; the best tried where its right neighbour diverged.

    A parabola through a diverged point would be pulled far to the left. None where the best is on an edge.
    """
    finite = {rate: loss for rate, loss in losses.items() if math.isfinite(loss)}
    best = min(finite, key=lambda rate: finite[rate])
    rates = sorted(losses)
    at = rates.index(best)
    if at in (0, len(rates) - 1):
        return None
    if math.isinf(losses[rates[at + 1]]):
        return best
    return optimum.estimate(sorted(finite), [finite[rate] for rate in sorted(finite)]).learning_rate


# MLPerf's Llama-2-70B LoRA runs (SCROLLS GovReport, r 16, alpha 32): submitters chose the rates, so that only batch
# size 8 has rates on both sides of the best. The score is samples to the target loss.
def mlperf(data: Path) -> tuple[Cell, ...]:
    """Return the one optimum that MLPerf's runs enclose."""
    samples: defaultdict[tuple[int, float], list[float]] = defaultdict(list)
    with (data / "mlperf_llama2_70b_lora" / "runs.csv").open() as file:
        for row in csv.DictReader(file):
            if row["samples_to_0925"]:
                key = int(row["global_batch_size"]), float(row["opt_base_learning_rate"])
                samples[key].append(float(row["samples_to_0925"]))
    found: list[Cell] = []
    for batch in sorted({batch for batch, _ in samples}):
        means = {rate: math.fsum(runs) / len(runs) for (size, rate), runs in samples.items() if size == batch}
        rate = best_rate(means) if len(means) > 2 else None
        if rate is not None:
            num = round(min(means.values()))
            setting = Setting("lora", 16, "32", batch, 8192, num, "llama")
            found.append(Cell("mlperf_llama2_70b_lora", LARGE, "Llama-2-70B", HELD_OUT, setting, rate))
    return tuple(found)


# Gemma-3-1B (hidden size 1152, MetaMathQA, 100,000 samples, alpha = r), Learning Rate Matters, arXiv 2602.04998:
# vertices of parabolas through its tables; the constant 0.2, the batch exponent and the shifts were read off it.
GEMMA_WIDTH, GEMMA_SAMPLES, GEMMA_BATCH = 1152, 100_000, 64
GEMMA_BY_RANK = {4: 0.136, 8: 0.192, 16: 0.272, 32: 0.216, 64: 0.172, 128: 0.243, 256: 0.193}  # eta* sqrt(s n r)
GEMMA_BY_BATCH = {  # at batch sizes 16, 64, 128
    "lora": (2.60e-4, 6.46e-4, 9.33e-4),
    "dora": (3.07e-4, 6.23e-4, 8.84e-4),
    "init_ab": (2.77e-4, 5.80e-4, 8.90e-4),
    "milora": (1.81e-4, 3.60e-4, 5.93e-4),
    "pissa": (1.01e-4, 2.56e-4, 3.40e-4),
}
GEMMA_RANK = 128  # of the table by batch size


def gemma() -> tuple[Cell, ...]:
    """Return Gemma-3-1B's optima by rank (LoRA, batch size 64) and by batch size (five methods)."""
    found = [
        _gemma("lora", rank, GEMMA_BATCH, constant / math.sqrt(GEMMA_WIDTH * rank), "gemma_by_rank")
        for rank, constant in GEMMA_BY_RANK.items()
    ]
    for method, rates in GEMMA_BY_BATCH.items():
        found += [
            _gemma(method, GEMMA_RANK, batch, rate, "gemma_by_batch")
            for batch, rate in zip((16, 64, 128), rates, strict=True)
        ]
    return tuple(found)


def _gemma(method: str, rank: int, batch: int, rate: float, table: str) -> Cell:
    setting = Setting(method, rank, "r", batch, GEMMA_WIDTH, GEMMA_SAMPLES, "gemma3_text")
    return Cell(table, LARGE, "Gemma-3-1B", DEVELOPMENT, setting, rate)


# Our own recorded studies ---------------------------------------------------------------------------------------------

SURFACES = ROOT / "surfaces"
ABACUS_WIDTHS = {"abacus-small": 64, "abacus-middle": 128, "abacus-large": 256}
CELL = ("base", "method", "rank", "alpha", "batch_size", "num_train", "num_train_epochs")


def recorded_studies() -> Iterator[Cell]:
    """Yield the enclosed optima of the studies in tests/recorded; all of them are development data."""
    for path in sorted(RECORDED.glob("*.jsonl.gz")):
        declaration, results = recorded.read(path)
        yield from _of_results(declaration.name, results, lambda config: DEVELOPMENT)


def surfaces(folder: Path = SURFACES) -> Iterator[Cell]:
    """Yield the enclosed optima of the recorded surfaces; those that the manifest does not list are held out."""
    chosen = set(tomllib.loads((folder / "manifest.toml").read_text(encoding="utf-8"))["development"])
    for results in surface_results(folder):
        yield from _of_results(
            "surfaces", results, lambda config: DEVELOPMENT if surface(config) in chosen else HELD_OUT
        )


def surface_results(folder: Path = SURFACES) -> Iterator[Sequence[Result]]:
    """Yield the results of every committed surface; the probes that centred them are left out."""
    paths = [path for path in sorted(folder.glob("tables/*.jsonl.gz")) if "-probe." not in path.name]
    if not paths:
        print("missing: no surface is recorded yet")
    for path in paths:
        yield recorded.read(path)[1]


def surface(config: Config) -> str:
    """Return the name of a trial's surface, as the manifest writes it."""
    return " ".join((config.base, *(() if config.method in FULL else (f"r{config.rank}",)), config.method))


def _of_results(table: str, results: Sequence[Result], split: Callable[[Config], str]) -> Iterator[Cell]:
    for cell in cells.group(results, CELL):
        config, found = cell.config, optimum.of_cell(cell)
        if found is None or found.learning_rate is None or config.base not in ABACUS_WIDTHS:
            continue
        num_samples = config.num_train * config.num_train_epochs
        width, rank = ABACUS_WIDTHS[config.base], max(config.rank, 1)
        setting = Setting(config.method, rank, config.alpha, config.batch_size, width, num_samples, "llama")
        yield Cell(table, SMALL, config.base, split(config), setting, found.learning_rate)
