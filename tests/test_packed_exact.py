"""Packed training equals training alone: beside any neighbours, over any split (conformance: against a reference)."""

import copy

import pytest
import torch

import tiny
from welltuned import plugins
from welltuned.records import Point, Status

METHODS = [name for name in plugins.names("methods") if not plugins.load("methods", name).parametrisation().whole]

MIXED = [
    {"batch_size": 4, "rank": 2, "learning_rate": 1e-2, "max_steps": 20, "weight_decay": 0.1},
    {"batch_size": 7, "rank": 3, "learning_rate": 3e-3, "max_steps": 20, "lr_scheduler_type": "linear", "scaling": 0.5},
    {"batch_size": 5, "rank": 5, "learning_rate": 2e-2, "num_train_epochs": 4, "warmup_ratio": 0.1, "order_seed": 3},
]


def test_methods_share_a_pack(tmp_path):
    """All methods that can be packed give side by side what each gives alone."""
    model = tiny.llama()
    trials = [tiny.trial(method=method, rank=rank, max_steps=6) for method in METHODS for rank in (2, 4)]
    together = tiny.outcomes(tiny.run_pack(tiny.packed(copy.deepcopy(model)), trials, 4, tmp_path))
    for one in trials:
        alone = tiny.outcomes(tiny.run_pack(tiny.packed(copy.deepcopy(model)), [one], 4, tmp_path))
        assert together[one.id].train_losses == pytest.approx(alone[one.id].train_losses, rel=1e-9, abs=0)
        assert together[one.id].validation_nll == pytest.approx(alone[one.id].validation_nll, rel=1e-9, abs=0)


@pytest.mark.parametrize("micro_rows", [1, 2, 5, 16])
def test_any_split_gives_the_same_trajectory(micro_rows, tmp_path):
    """The effective batch, not the micro-batch, decides the update; dropout included."""
    trials = [tiny.trial(method="lora", dropout=0.2, **changes) for changes in MIXED]
    model = tiny.packed()
    whole = tiny.outcomes(tiny.run_pack(model, trials, 24, tmp_path))
    split = tiny.outcomes(tiny.run_pack(model, trials, micro_rows, tmp_path))
    for one in trials:
        assert split[one.id].train_losses == pytest.approx(whole[one.id].train_losses, rel=1e-9, abs=0)


def test_divergence_leaves_neighbours_alone(tmp_path):
    """A diverging trial is frozen and counted; until the next planned compaction no bit of its neighbours changes."""
    calm = [tiny.trial(learning_rate=1e-3, order_seed=seed) for seed in (0, 1)]
    wild = tiny.trial(learning_rate=1e300, lr_scheduler_type="constant", order_seed=2)
    tame = tiny.trial(learning_rate=1e-4, lr_scheduler_type="constant", order_seed=2)
    model = tiny.packed()
    with_wild = tiny.outcomes(tiny.run_pack(model, [calm[0], wild, calm[1]], 4, tmp_path))
    with_tame = tiny.outcomes(tiny.run_pack(model, [calm[0], tame, calm[1]], 4, tmp_path))
    assert with_wild[wild.id].status is Status.DIVERGED
    assert "training loss nan at step" in with_wild[wild.id].reason
    assert with_wild[wild.id].adapter is None
    assert with_wild[wild.id].num_steps < 6
    for one in calm:
        early = slice(0, with_wild[wild.id].num_steps + 1)
        assert with_wild[one.id].train_losses[early] == with_tame[one.id].train_losses[early]
        assert with_wild[one.id].train_losses == pytest.approx(with_tame[one.id].train_losses, rel=1e-9, abs=0)
        assert with_wild[one.id].status is Status.FINISHED


def test_a_pack_whose_trials_have_all_diverged_ends(tmp_path):
    """Nothing is left to be computed, long before the next planned compaction."""
    wild = [tiny.trial(learning_rate=rate, num_train_epochs=10) for rate in (1e300, 1e299)]
    ends = tiny.outcomes(tiny.run_pack(tiny.packed(), wild, 4, tmp_path))
    assert {end.status for end in ends.values()} == {Status.DIVERGED}
    assert all(end.num_steps < 5 for end in ends.values())


def test_a_neighbours_end_changes_no_bit_before_the_planned_compaction(tmp_path):
    """In float32, where matmuls of other shapes round differently: training losses and validation losses."""
    model = tiny.packed(tiny.llama(torch.float32))
    calm = [tiny.trial(learning_rate=1e-3, order_seed=seed, num_train_epochs=8, num_evaluations=48) for seed in (0, 1)]
    schedule = {"lr_scheduler_type": "constant", "order_seed": 2, "num_train_epochs": 8, "num_evaluations": 48}
    runs = []
    for rate in (1e30, 1e-4):
        trials = [calm[0], tiny.trial(learning_rate=rate, **schedule), calm[1]]
        runs.append(tiny.run_pack(model, trials, 4, tmp_path))
    end = tiny.outcomes(runs[0])[tiny.trial(learning_rate=1e30, **schedule).id]
    assert end.status is Status.DIVERGED
    planned = 3  # micro-steps between compactions: 48 of them in all, 16 times
    assert end.num_steps < planned
    for one in calm:
        first, second = (
            [event for event in run if isinstance(event, Point) and event.trial_id == one.id][: planned + 1]
            for run in runs
        )
        assert first == second
