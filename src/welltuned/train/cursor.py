"""Row cursors: which rows each trial of a pack reads in each micro-step, all known before training (design D2).

Per micro-step a trial takes up to m rows and never crosses its own optimizer step or epoch; the last partial batch of
an epoch is kept. Every row's loss weight is 1 / (target tokens of its effective batch), so any split gives the same
update, and any order within a batch. So rows are put together for little padding: of like length where each row is
padded to the longest, of like sums where they are read one behind the other.
"""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from welltuned import data
from welltuned.records import Config


@dataclass(frozen=True)
class Turn:
    """What one trial does in one micro-step."""

    rows: np.ndarray  # indices into the training rows, at most m
    places: np.ndarray  # of these rows in their effective batch, in the order of the data
    step: int  # optimizer step it belongs to, from 0
    num_targets: int  # target tokens of the whole effective batch
    ends_step: bool
    num_samples: int  # rows read so far, these included


def batches(config: Config, num_rows: int) -> list[np.ndarray]:
    """Return the rows of every optimizer step: epochs in shuffled order, the last partial batch of each kept."""
    chosen = data.subset(config, num_rows)
    steps: list[np.ndarray] = []
    epoch = 0
    while True:
        order = chosen[data.epoch_order(config, epoch, len(chosen))]
        steps += [order[first : first + config.batch_size] for first in range(0, len(order), config.batch_size)]
        epoch += 1
        if config.max_steps is None and epoch == config.num_train_epochs:
            return steps
        if config.max_steps is not None and len(steps) >= config.max_steps:
            return steps[: config.max_steps]


def turns(config: Config, num_targets: np.ndarray, lengths: np.ndarray, micro_rows: int, joined: bool) -> list[Turn]:
    """Return the trial's turns, one for each micro-step; row i has `num_targets[i]` target tokens of `lengths[i]`.

    `joined` says that the rows of a micro-step are read one behind the other.
    """
    split = _even if joined else _sorted
    result: list[Turn] = []
    num_samples = 0
    for step, rows in enumerate(batches(config, len(num_targets))):
        total = int(num_targets[rows].sum())
        left = len(rows)
        for places in split(lengths[rows], micro_rows):
            num_samples += len(places)
            left -= len(places)
            result.append(Turn(rows[places], places, step, total, left == 0, num_samples))
    return result


def _sorted(lengths: np.ndarray, micro_rows: int) -> Iterator[np.ndarray]:
    """Split a batch into micro-steps of rows of like length, the longest first."""
    order = np.argsort(-lengths, kind="stable")
    yield from (order[first : first + micro_rows] for first in range(0, len(order), micro_rows))


def _even(lengths: np.ndarray, micro_rows: int) -> Iterator[np.ndarray]:
    """Split a batch into as few micro-steps, of sums that are nearly the same: the longest row left to the least."""
    num_parts = -(-len(lengths) // micro_rows)
    parts: list[list[int]] = [[] for _ in range(num_parts)]
    open_parts = [(0, part) for part in range(num_parts)]  # (its tokens, which): a heap
    for place in np.argsort(-lengths, kind="stable").tolist():
        num_tokens, part = heapq.heappop(open_parts)
        parts[part].append(place)
        if len(parts[part]) < micro_rows:
            heapq.heappush(open_parts, (num_tokens + int(lengths[place]), part))
    yield from (np.array(sorted(part)) for part in parts)
