"""Three disjoint splits of examples: validation is carved first, then test, by `split_seed`; training is the rest.

A split with data of its own (`data_validation`, `data_test`) is taken from there instead: all of it, or as many as
asked, chosen by `split_seed`. The split seed alone decides, not the study's, so studies of one data set share their
splits.
"""

import unicodedata
from collections.abc import Sequence

import numpy as np

from welltuned import plugins, rng
from welltuned.data import sources
from welltuned.errors import InputError, problem
from welltuned.records import Config
from welltuned.tasks._task import Example, Task

SPLITS = ("train", "validation", "test")
NUM_GENERATED = 20_000  # assumed: the pool that a seeded subset of a generated task is drawn from


def examples(config: Config, splits: Sequence[str]) -> dict[str, Sequence[Example]]:
    """Return the examples of the named splits; for "train", all that the configuration may choose from."""
    task = plugins.load("tasks", config.task)
    if task.generate is not None:
        return _generated(config, task, splits)
    if not config.data_train:
        raise InputError(
            problem(
                "data_train", "nothing", f"files or a hub name for task '{config.task}' to read", "set it in [task]"
            )
        )
    carved: dict[str, Sequence[Example]] = {}
    if any(not _own(config, split) for split in splits):
        carved = carve(config, sources.examples(config.task, config.data_train, "train"))
    return {split: _from_own(config, split) if _own(config, split) else carved[split] for split in splits}


def num_available(config: Config, train: Sequence[Example]) -> int:
    """Return how many training rows there are before any is dropped; a generated task makes as many as asked."""
    generates = plugins.load("tasks", config.task).generate is not None
    return max(NUM_GENERATED, len(train)) if generates else len(train)


def carve(config: Config, pool: Sequence[Example]) -> dict[str, Sequence[Example]]:
    """Take validation, then test, out of a pool (neither where it has data of its own); the rest keeps its order."""
    num_validation = 0 if config.data_validation else config.num_validation
    num_test = 0 if config.data_test else config.num_test
    num_left = len(pool) - num_validation - num_test
    if num_left < config.num_train:
        taken = f" after {num_validation} for validation and {num_test} for test" if num_validation + num_test else ""
        raise InputError(
            f"num_train: got {config.num_train}, expected at most {max(num_left, 0)}, what is left of the {len(pool)} "
            f"rows of the training data{taken}; lower num_train, num_validation or num_test"
        )
    order = rng.stream(config.split_seed, "split").permutation(len(pool))
    ends = {"validation": order[:num_validation], "test": order[num_validation : num_validation + num_test]}
    parts = ends | {"train": order[num_validation + num_test :]}
    return {split: _pick(pool, chosen) for split, chosen in parts.items()}


def normalised(prompt: str) -> str:
    """Return a prompt without the differences that do not make it another one: case, width and white space."""
    return " ".join(unicodedata.normalize("NFKC", prompt).casefold().split())


def _pick(pool: Sequence[Example], chosen: np.ndarray) -> tuple[Example, ...]:
    return tuple(pool[index] for index in np.sort(chosen))


def _own(config: Config, split: str) -> tuple[str, ...]:
    return {"validation": config.data_validation, "test": config.data_test}.get(split, ())


def _from_own(config: Config, split: str) -> Sequence[Example]:
    pool = sources.examples(config.task, _own(config, split), split)
    num_wanted = config.num_validation if split == "validation" else config.num_test
    if num_wanted > len(pool):
        raise InputError(
            problem(f"num_{split}", num_wanted, f"at most {len(pool)}, the rows of data_{split}", f"lower num_{split}")
        )
    return _pick(pool, rng.stream(config.split_seed, "split", split).permutation(len(pool))[:num_wanted])


def _generated(config: Config, task: Task, splits: Sequence[str]) -> dict[str, Sequence[Example]]:
    named = config.data_train + config.data_validation + config.data_test
    if named:
        raise InputError(
            problem("data_train", named[0], f"nothing, since task '{config.task}' makes its own examples", "remove it")
        )
    pool = max(config.num_train, NUM_GENERATED if config.subset == "seeded" else 0)
    sizes = {"train": pool, "validation": config.num_validation, "test": config.num_test}
    generate = task.generate
    assert generate is not None
    return {
        split: tuple(generate(config.split_seed, split, index) for index in range(sizes[split])) for split in splits
    }
