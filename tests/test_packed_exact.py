"""Packed training equals training alone: against a plain reference, over any split, in float64."""

import copy

import pytest
import torch

import tiny
from reference.train import train
from welltuned import plugins, rng
from welltuned.records import Point, Status
from welltuned.train.cursor import batches

METHODS = plugins.names("methods")

MIXED = [
    {"batch_size": 4, "rank": 2, "learning_rate": 1e-2, "max_steps": 20, "weight_decay": 0.1},
    {"batch_size": 7, "rank": 3, "learning_rate": 3e-3, "max_steps": 20, "lr_scheduler_type": "linear", "scaling": 0.5},
    {"batch_size": 5, "rank": 5, "learning_rate": 2e-2, "num_train_epochs": 4, "warmup_ratio": 0.1, "order_seed": 3},
    {"batch_size": 24, "rank": 1, "learning_rate": 1e-3, "num_train_epochs": 20, "init_seed": 5, "scaling": 2.0},
    {"batch_size": 6, "rank": 4, "learning_rate": 5e-3, "max_steps": 20, "lr_scheduler_type": "cosine_with_floor"},
    {"batch_size": 3, "rank": 2, "learning_rate": 1e-3, "num_train": 10, "num_train_epochs": 5, "subset_seed": 2}
    | {"subset": "seeded", "lr_scheduler_type": "constant", "max_grad_norm": None, "beta2_batch_size": 4},
    {"batch_size": 4, "rank": 2, "learning_rate": 5e-3, "max_steps": 20, "optimizer": "sgd", "weight_decay": 0.05},
    {"batch_size": 4, "rank": 2, "learning_rate": 1e-3, "max_steps": 20, "optimizer": "sign_sgd", "weight_decay": 0.05},
]


def reference_losses(model, config):
    """Train the configuration alone with the plain reference."""
    rows = tiny.rows()
    base = tiny.base(copy.deepcopy(model))
    lora_As = {}
    for site in base.sites:
        generator = torch.Generator().manual_seed(rng.seed_of(config.study_seed, "init", config.init_seed, site))
        num_in = base.weight(site).shape[1]
        uniform = torch.rand(config.rank, num_in, generator=generator, dtype=torch.float64)
        lora_As[site] = (2 * uniform - 1) / num_in**0.5
    plain_rows = [(ids.tolist(), int(length)) for ids, length in zip(rows.token_ids, rows.prompt_lengths, strict=True)]
    return train(base.model, list(base.sites), config, batches(config, len(plain_rows)), plain_rows, lora_As)


@pytest.mark.parametrize("make", [tiny.llama, tiny.gpt2])
@pytest.mark.parametrize("method", METHODS)
def test_packed_equals_reference(method, make, tmp_path):
    """Mixed batch sizes that m does not divide, ranks, rates, schedules, optimizers, seeds and epochs: <= 1e-9."""
    model = make()
    trials = [tiny.trial(method=method, **changes) for changes in MIXED]
    ends = tiny.outcomes(tiny.run_pack(tiny.packed(copy.deepcopy(model)), trials, 3, tmp_path))
    for one in trials:
        expected = reference_losses(model, one.config)
        assert len(expected) >= 20
        assert ends[one.id].train_losses == pytest.approx(expected, rel=1e-9, abs=0)


def test_methods_share_a_pack(tmp_path):
    """All methods side by side give what each gives alone."""
    model = tiny.llama()
    trials = [tiny.trial(method=method, rank=rank, max_steps=8) for method in METHODS for rank in (2, 4)]
    together = tiny.outcomes(tiny.run_pack(tiny.packed(copy.deepcopy(model)), trials, 4, tmp_path))
    for one in trials:
        alone = tiny.outcomes(tiny.run_pack(tiny.packed(copy.deepcopy(model)), [one], 4, tmp_path))
        assert together[one.id].train_losses == pytest.approx(alone[one.id].train_losses, rel=1e-9, abs=0)
        assert together[one.id].validation_nll == pytest.approx(alone[one.id].validation_nll, rel=1e-9, abs=0)


@pytest.mark.parametrize("micro_rows", [1, 2, 5, 16])
def test_any_split_gives_the_same_trajectory(micro_rows, tmp_path):
    """The effective batch, not the micro-batch, decides the update; dropout included."""
    trials = [tiny.trial(method="lora", dropout=0.2, **changes) for changes in MIXED[:3]]
    model = tiny.packed()
    whole = tiny.outcomes(tiny.run_pack(model, trials, 24, tmp_path))
    split = tiny.outcomes(tiny.run_pack(model, trials, micro_rows, tmp_path))
    for one in trials:
        assert split[one.id].train_losses == pytest.approx(whole[one.id].train_losses, rel=1e-9, abs=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("method", METHODS)
def test_step_0_is_exactly_the_base(method, dtype, tmp_path):
    """With a learning rate too small to move a weight's last bit the curve stays at the base's, in any precision."""
    model = tiny.packed(tiny.llama(dtype))
    one = tiny.trial(method=method, learning_rate=1e-30, max_steps=2)
    points = [event for event in tiny.run_pack(model, [one], 4, tmp_path) if isinstance(event, Point)]
    assert points[0].step == 0
    assert points[-1].validation_nll == points[0].validation_nll


@pytest.mark.parametrize("method", METHODS)
def test_base_weights_are_untouched(method, tmp_path):
    """A run changes no bit of the base."""
    model = tiny.llama(torch.float32)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    packed = tiny.packed(model)
    ends = tiny.outcomes(tiny.run_pack(packed, [tiny.trial(method=method, learning_rate=0.05)], 4, tmp_path))
    packed.close()
    assert next(iter(ends.values())).num_steps == 6
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


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


def test_rank_padding_is_inert(tmp_path):
    """Gradient, moments and decay of padded ranks stay exactly zero."""
    from welltuned.packing import optimizer, state
    from welltuned.packing.batch import RowTable

    model = tiny.packed()
    trials = [
        tiny.trial(method="pissa", rank=2, weight_decay=0.1),
        tiny.trial(method="pissa", rank=3, weight_decay=0.1),
    ]
    pack = state.initial(model.base, trials)
    (group,) = pack.groups
    block = RowTable(tiny.rows(), 0, model.base.device).block([torch.arange(4).numpy()] * 2, 4)
    for count in range(1, 4):
        with model.bound(pack):
            features = model.base.features(block.ids_RT)
        pack.accumulate(features.square().sum())
        configs = [one.config for one in trials]
        optimizer.step(model.base, group, [0, 1], configs, [0.1, 0.1], [count, count])
    padding = torch.ones_like(group.flat_NP[0], dtype=torch.bool)
    for (_, name), (offset, shape) in group.layout.items():
        mask = torch.ones(shape, dtype=torch.bool)
        mask[(slice(2), slice(None)) if name == "dA" else (slice(None), slice(2))] = False
        padding[offset : offset + mask.numel()] = mask.flatten()
    for buffer in (group.flat_NP, group.moment1_NP, group.moment2_NP):
        assert padding.any()
        assert not buffer[0][padding].any()
        assert buffer[1][padding].any()


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
