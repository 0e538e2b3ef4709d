"""Turns: every row of an effective batch once, in micro-steps of at most m rows that need little padding."""

import numpy as np
import pytest

import synthetic
from welltuned import rng
from welltuned.train import cursor

CONFIG = synthetic.CONFIG.replace(batch_size=7, num_train=20, num_train_epochs=2)
GENERATOR = rng.stream(0, "test-cursor")
LENGTHS = GENERATOR.integers(5, 90, 20)
NUM_TARGETS = LENGTHS - 3


def turns(micro_rows: int, joined: bool = False) -> list[cursor.Turn]:
    return cursor.turns(CONFIG, NUM_TARGETS, LENGTHS, micro_rows, joined)


@pytest.mark.parametrize("joined", [False, True])
@pytest.mark.parametrize("micro_rows", [1, 2, 3, 7, 50])
def test_each_effective_batch_is_read_once_whatever_the_split(micro_rows, joined):
    for step, rows in enumerate(cursor.batches(CONFIG, 20)):
        mine = [turn for turn in turns(micro_rows, joined) if turn.step == step]
        assert len(mine) == -(-len(rows) // micro_rows)
        assert max(len(turn.rows) for turn in mine) <= micro_rows
        assert sorted(np.concatenate([turn.rows for turn in mine])) == sorted(rows)
        assert [turn.ends_step for turn in mine] == [False] * (len(mine) - 1) + [True]
        assert {turn.num_targets for turn in mine} == {int(NUM_TARGETS[rows].sum())}


def test_the_longest_rows_of_a_batch_come_first():
    for step in range(6):
        read = np.concatenate([turn.rows for turn in turns(2) if turn.step == step])
        assert (np.diff(LENGTHS[read]) <= 0).all()


@pytest.mark.parametrize("joined", [False, True])
def test_a_row_keeps_its_place_in_the_batch_which_names_its_dropout(joined):
    batches = cursor.batches(CONFIG, 20)
    for turn in turns(3, joined):
        assert (batches[turn.step][turn.places] == turn.rows).all()


def test_joined_rows_are_split_into_even_sums():
    """Batches of 64 rows of 5 to 89 tokens in micro-steps of 4: the longest is within 10 % of the mean."""
    lengths = rng.stream(1, "test-cursor").integers(5, 90, 256)
    config = CONFIG.replace(batch_size=64, num_train=256)
    sums = [int(lengths[turn.rows].sum()) for turn in cursor.turns(config, lengths, lengths, 4, joined=True)]
    for first in range(0, len(sums), 16):
        batch = sums[first : first + 16]
        assert max(batch) < 1.1 * sum(batch) / len(batch)


def test_less_is_padded_than_in_the_order_of_the_data():
    """Four trials with orders of their own: the slots of micro-steps padded to the longest of all."""

    def slots(steps: list[list[np.ndarray]]) -> int:
        return sum(int(LENGTHS[np.concatenate(rows)].max()) * sum(map(len, rows)) for rows in zip(*steps, strict=True))

    configs = [CONFIG.replace(order_seed=seed, batch_size=4) for seed in range(4)]
    ordered = [
        [turn.rows for turn in cursor.turns(config, NUM_TARGETS, LENGTHS, 1, joined=False)] for config in configs
    ]
    as_given = [[row[None] for batch in cursor.batches(config, 20) for row in batch] for config in configs]
    assert slots(ordered) < 0.95 * slots(as_given)
