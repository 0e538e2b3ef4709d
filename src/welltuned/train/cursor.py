"""Row cursors: which rows each trial of a pack reads in each micro-step, all known before training (design D2).

Per micro-step a trial takes up to m rows and never crosses its own optimizer step or epoch; the last partial batch of
an epoch is kept. Every row's loss weight is 1 / (target tokens of its effective batch), so any split gives the same
update, and any order within a batch: the longest rows come first, so that micro-steps hold rows of like length, in all
trials of a pack, and little is padded.
"""

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


def turns(config: Config, num_targets: np.ndarray, lengths: np.ndarray, micro_rows: int) -> list[Turn]:
    """Return the trial's turns, one for each micro-step; row i has `num_targets[i]` target tokens of `lengths[i]`."""
    result: list[Turn] = []
    num_samples = 0
    for step, rows in enumerate(batches(config, len(num_targets))):
        total = int(num_targets[rows].sum())
        order = np.argsort(-lengths[rows], kind="stable")
        for first in range(0, len(rows), micro_rows):
            places = order[first : first + micro_rows]
            num_samples += len(places)
            is_last = first + micro_rows >= len(rows)
            result.append(Turn(rows[places], places, step, total, is_last, num_samples))
    return result
