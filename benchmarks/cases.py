"""The cases: which trials each of them trains, who competes, and the ratio that is aimed at."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from welltuned import plan
from welltuned.records import Config
from welltuned.spec import Spec

# Eight a decade and a half apart from end to end; assumed: no trial diverges, so every runner does the same work.
LEARNING_RATES = [1e-4, 1.5e-4, 2.4e-4, 3.6e-4, 5.5e-4, 8.4e-4, 1.3e-3, 2e-3]
SEEDS = 4  # 8 learning rates x 4 seeds: 32 trials
FEWEST_SAMPLES = 12  # three batches of the smallest batch size
ALL_RUNNERS = ("packed", "alone", "trainer", "loop")


@dataclass(frozen=True)
class Options:
    """What the command line says: sizes and files, nothing about how a runner works."""

    base: str = "abacus-middle"
    dtype: str = "bfloat16"  # of welltuned's base; Trainer's is chosen by its own selection pass
    samples: int | None = None  # training rows of a trial; None: each case's own
    smollm2: Path | None = None
    gsm8k: Path | None = None


@dataclass(frozen=True)
class Contender:
    """A row of a case: a runner and the trials that it trains."""

    name: str
    runner: str
    configs: tuple[Config, ...]


@dataclass(frozen=True)
class Case:
    """Contenders that are timed side by side; `target` is the ratio wanted of the first one over `against`."""

    name: str
    title: str
    contenders: tuple[Contender, ...]
    against: str
    target: float


def batch(options: Options, batch_size: int, samples: int, target: float) -> Case:
    """32 LoRA trials of one batch size."""
    configs = _abacus(options, samples, {"batch_size": batch_size}, {"learning_rate": LEARNING_RATES}, SEEDS)
    title = f"{options.base}, {len(configs)} LoRA trials, rank 8, batch {batch_size}"
    return _everyone(f"batch-{batch_size}", title, configs, target)


def mixed(options: Options, samples: int, target: float) -> Case:
    """Four batch sizes by eight learning rates."""
    axes = {"batch_size": [4, 16, 64, 256], "learning_rate": LEARNING_RATES}
    configs = _abacus(options, samples, {}, axes, 1)
    title = f"{options.base}, batch {{4, 16, 64, 256}} x {len(LEARNING_RATES)} learning rates, rank 8"
    return _everyone("mixed", title, configs, target)


def method(options: Options, name: str, samples: int, target: float) -> Case:
    """Packs of another method against packs of LoRA: the same trials but for the method."""
    configs = {
        each: _abacus(options, samples, {"batch_size": 16, "method": each}, {"learning_rate": LEARNING_RATES}, SEEDS)
        for each in (name, "lora")
    }
    contenders = tuple(Contender(f"packed {each}", "packed", configs[each]) for each in configs)
    title = f"{options.base}, packs of {len(configs[name])} {name} trials against LoRA's, rank 8, batch 16"
    return Case(name, title, contenders, "packed lora", target)


def smollm2(
    name: str, options: Options, samples: int, target: float, runners: Sequence[str] = ALL_RUNNERS
) -> Case | str:
    """SmolLM2-135M on GSM8K, or why it is skipped."""
    if options.smollm2 is None or options.gsm8k is None:
        return "needs --smollm2 PATH.gguf and --gsm8k PATH.jsonl"
    sections = {
        "name": "smollm2",
        "model": {"base": str(options.smollm2), "dtype": options.dtype},
        "task": {
            "task": "gsm8k",
            "data_train": [str(options.gsm8k)],
            "num_train": options.samples or samples,
            "num_validation": 8,
            "num_test": 8,
            "max_length": 384,
        },
        "train": {"rank": 16, "batch_size": 4, "num_evaluations": 1},
        "axes": {"learning_rate": LEARNING_RATES},
    }
    title = f"SmolLM2-135M, GSM8K, 8 LoRA trials of {options.samples or samples} rows, rank 16, batch 4"
    return _everyone(name, title, plan.expand(Spec.model_validate(sections)), target, runners)


def make(name: str, options: Options) -> Case | str:
    """Return a case by name, or why it is skipped. The targets are those that the benchmark was set up with.

    Of smollm2-long nothing was asked but the matmul fraction, 0.45; its target says that packing costs nothing.
    """
    methods = {"pissa": 0.6, "dora": 0.6}
    batches = {"batch-4": (4, 512, 8.0), "batch-16": (16, 512, 4.5), "batch-64": (64, 1024, 3.0)}
    if name in batches:
        return batch(options, *batches[name])
    if name in methods:
        return method(options, name, 512, methods[name])
    if name == "smollm2-long":
        return smollm2(name, options, 128, 1.0, ("packed", "alone"))
    return mixed(options, 1024, 4.5) if name == "mixed" else smollm2(name, options, 32, 2.0)


NAMES = ("batch-4", "batch-16", "batch-64", "mixed", "pissa", "dora", "smollm2", "smollm2-long")


def measured(configs: Sequence[Config], num_measured: int | None) -> list[Config]:
    """Return the trials that a sequential runner trains: all of them, or some of every batch size.

    The first batch size has two at the least, so that what happens once (loading, compiling) can be told apart.
    """
    if num_measured is None or num_measured >= len(configs):
        return list(configs)
    groups = by_batch(configs)
    each = max(1, num_measured // len(groups))
    chosen: list[Config] = []
    for place, members in enumerate(groups.values()):
        wanted = min(len(members), max(each, 2 if place == 0 else 1))
        chosen += [members[index * len(members) // wanted] for index in range(wanted)]
    return chosen


def by_batch(configs: Sequence[Config]) -> dict[int, list[Config]]:
    """Return the trials by batch size."""
    groups: dict[int, list[Config]] = {}
    for config in configs:
        groups.setdefault(config.batch_size, []).append(config)
    return groups


def _abacus(options: Options, samples: int, train: dict, axes: dict, seeds: int) -> tuple[Config, ...]:
    sections = {
        "name": "benchmark",
        "model": {"base": options.base, "dtype": options.dtype},
        # 8 validation rows, read before the first step and after the last: they are in welltuned's time, and Trainer
        # and the loop have none
        "task": {"task": "abacus", "num_train": options.samples or samples, "num_validation": 8, "num_test": 8},
        "train": {"rank": 8, "num_evaluations": 1, **train},
        "axes": axes,
        "search": {"seeds": seeds},
    }
    return plan.expand(Spec.model_validate(sections))


def _everyone(
    name: str, title: str, configs: tuple[Config, ...], target: float, runners: Sequence[str] = ALL_RUNNERS
) -> Case:
    """Return a case of these runners, against Trainer, or against the last where that does not take part."""
    against = "trainer" if "trainer" in runners else runners[-1]
    return Case(name, title, tuple(Contender(runner, runner, configs) for runner in runners), against, target)
