"""From a configuration to token rows: read or generate examples, split them, render the prompt, tokenise, and choose.

Nothing here depends on a trial's method or learning rate, and each choice has a named random stream of its own:
`(split_seed, "split")` carves the splits, `(study_seed, "subset", subset_seed)` chooses the training rows, and
`(study_seed, "order", order_seed, epoch)` shuffles them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from welltuned import plugins, rng
from welltuned.data import splits as carving
from welltuned.data.encode import Rows, encode
from welltuned.errors import InputError, problem
from welltuned.records import Config
from welltuned.tasks._task import Example

__all__ = ["DataCounts", "Rows", "counts", "epoch_order", "load", "subset", "widest"]

MAX_DROPPED = 0.01  # of a split's rows: above this the data or max_length is wrong, not a row


@dataclass(frozen=True)
class DataCounts:
    """What the survey says about the data: rows, tokens of a training row, and what was lost to `max_length`."""

    num_train_available: int
    num_validation: int
    num_test: int
    mean_tokens: float
    longest_tokens: int
    mean_target_tokens: float
    num_truncated: int  # of all three splits, as is num_dropped
    num_dropped: int
    num_duplicates: int


def load(config: Config, tokenizer, splits: tuple[str, ...]) -> dict[str, Rows]:
    """Make the token rows of the named splits ("train", "validation", "test"); one that is not named is not opened.

    Training rows are all that `config` may use: the first `num_train` that are not dropped, or every available row
    where the subset is seeded. Choose a trial's own with `subset`; for several trials at once, load `widest(configs)`.
    """
    return _load(config, tokenizer, carving.examples(config, splits))


def widest(configs: Sequence[Config]) -> Config:
    """Return a configuration whose `load` holds the training rows of all of these, which share their data key."""
    subset_kind = "seeded" if any(config.subset == "seeded" for config in configs) else "first"
    return configs[0].replace(subset=subset_kind, num_train=max(config.num_train for config in configs))


def subset(config: Config, num_available: int) -> np.ndarray:
    """Return the indices of a trial's training rows, rising: the first `num_train`, or as many by `subset_seed`."""
    if config.num_train > num_available:
        raise ValueError(
            f"{num_available} training rows were loaded, {config.num_train} are wanted: load widest(configs)"
        )
    if config.subset == "first":
        return np.arange(config.num_train)
    generates = plugins.load("tasks", config.task).generate is not None
    num_pool = min(carving.NUM_GENERATED, num_available) if generates else num_available
    if config.num_train > num_pool:
        expected = f"at most {num_pool}, the pool of a seeded subset"
        raise InputError(problem("num_train", config.num_train, expected, 'lower it, or set subset = "first"'))
    shuffled = rng.stream(config.study_seed, "subset", config.subset_seed).permutation(num_pool)
    return np.sort(shuffled[: config.num_train])


def epoch_order(config: Config, epoch: int, num_rows: int) -> np.ndarray:
    """Return the order of a trial's rows in one epoch: a permutation of 0 .. num_rows - 1."""
    return rng.stream(config.study_seed, "order", config.order_seed, epoch).permutation(num_rows)


def counts(config: Config, tokenizer) -> DataCounts:
    """Count what a study on this data will meet; raises InputError with every problem found.

    The test split is read here for its size, its lengths and its overlap with training; nothing is scored on it.
    """
    found = carving.examples(config, carving.SPLITS)
    rows = _load(config, tokenizer, found)
    train = rows["train"]
    subset(config, len(train.token_ids))  # refuses a pool that is too small
    num_tokens = np.array([len(ids) for ids in train.token_ids])
    held_out = {carving.normalised(row.prompt) for name in carving.SPLITS[1:] for row in rows[name].examples}
    return DataCounts(
        num_train_available=carving.num_available(config, found["train"]),
        num_validation=len(rows["validation"].token_ids),
        num_test=len(rows["test"].token_ids),
        mean_tokens=float(num_tokens.mean()),
        longest_tokens=int(num_tokens.max()),
        mean_target_tokens=float((num_tokens - train.prompt_lengths).mean()),
        num_truncated=sum(part.num_truncated for part in rows.values()),
        num_dropped=sum(part.num_dropped for part in rows.values()),
        num_duplicates=sum(carving.normalised(example.prompt) in held_out for example in train.examples),
    )


def _load(config: Config, tokenizer, found: Mapping[str, Sequence[Example]]) -> dict[str, Rows]:
    rows: dict[str, Rows] = {}
    problems: list[str] = []
    for split, examples in found.items():
        try:
            rows[split] = _load_split(config, tokenizer, split, examples)
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    return rows


def _load_split(config: Config, tokenizer, split: str, examples: Sequence[Example]) -> Rows:
    """Encode a split; of the training rows no more than are needed to have `num_train` after dropping."""
    only_first = split == "train" and config.subset == "first"
    num_wanted = config.num_train if only_first else len(examples)
    parts: list[Rows] = []
    num_read = num_kept = 0
    while num_kept < num_wanted and num_read < len(examples):
        batch = examples[num_read : num_read + num_wanted - num_kept]
        parts.append(encode(batch, tokenizer, config.prompt_template, config.max_length, split))
        num_read += len(batch)
        num_kept += len(parts[-1].token_ids)
        if not only_first:
            break
    rows = Rows.join(parts)
    _check(config, split, rows, num_read)
    return rows


def _check(config: Config, split: str, rows: Rows, num_read: int) -> None:
    num_kept = len(rows.token_ids)
    lost = f"{rows.num_dropped} of {num_read} rows have no completion"
    where = f"{split} data: {lost} within max_length = {config.max_length}"
    if num_read and not num_kept:
        raise InputError(f"{where}, expected at least one that has; raise max_length or look at the file's completions")
    if rows.num_dropped > MAX_DROPPED * num_read:
        raise InputError(f"{where}, expected at most {MAX_DROPPED:.0%}; raise max_length or remove such rows")
    if split == "train" and num_kept < config.num_train:
        raise InputError(
            f"num_train: got {config.num_train}, expected at most {num_kept} (what is left after "
            f"{rows.num_dropped} rows without a completion were dropped); lower num_train"
        )
