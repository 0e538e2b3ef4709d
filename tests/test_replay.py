"""Replay on a planted surface: what is looked up, what it costs, in what order it comes back, and what is judged."""

import math

import numpy as np
import pytest

import planted_surface as planted
from small_study import forge_hashes
from welltuned.executors._valley import WINDOW, Valley
from welltuned.executors.replay import HALF_WIDTH, Clock, Recorded, World, replay
from welltuned.records import Proposal, Role, Status, Trial
from welltuned.search import _space, grid, uniform


@pytest.fixture(autouse=True)
def forged(monkeypatch):
    forge_hashes(monkeypatch)


@pytest.fixture
def recorded():
    return Recorded(planted.results())


def config_of(plan, batch_size=4, place=0):
    return next(
        config
        for config in plan.arms[0].configs
        if (config.batch_size, config.learning_rate) == (batch_size, planted.RATES[place])
    )


def replayed(search, plan, world, width=8):
    (choice,) = _space.choices(plan)
    return replay(lambda results: search.propose(plan, results), world, choice.cost, Clock(10.0, width))


def test_a_full_trial_is_the_recorded_one_of_the_replays_seed(recorded):
    config = config_of(planted.plan())
    for seed in range(3):
        found = World(recorded, seed).result(Trial(config, Role.SELECT))
        assert found.validation_nll == planted.result(config.replace(init_seed=seed)).validation_nll
        assert (found.trial_id, found.config) == (config.id(), config)


def test_further_selection_seeds_are_the_next_recorded_ones(recorded):
    config = config_of(planted.plan())
    found = World(recorded, 2).result(Trial(config.replace(init_seed=1), Role.SELECT))
    assert found.validation_nll == planted.result(config.replace(init_seed=0)).validation_nll


def test_what_was_not_recorded_is_lost_and_says_so(recorded):
    config = config_of(planted.plan()).replace(learning_rate=0.5)
    found = World(recorded, 0).result(Trial(config, Role.SELECT))
    assert found.status is Status.LOST and found.validation_nll is None
    assert found.reason == "this learning rate, batch size or number of rows was not recorded"


def test_a_probe_of_a_recorded_number_of_rows_has_that_trials_loss(recorded):
    config = config_of(planted.plan())
    found = World(recorded, 1).result(Trial(_space.shortened(config, 1 / 4), Role.PROBE))
    assert found.validation_nll == pytest.approx(
        planted.result(config.replace(num_train=128, init_seed=1)).validation_nll
    )
    assert found.reason == "read from 128 and 512 rows"


@pytest.mark.parametrize("share", [1 / 2, 1 / 8])
def test_a_probe_between_or_below_the_recorded_ones_is_read_from_the_line_through_two(recorded, share):
    config = config_of(planted.plan(), place=3)
    found = World(recorded, 1).result(Trial(_space.shortened(config, share), Role.PROBE))
    # The planted log loss is linear in the logarithm of the rows, and seed 1 has no deviation.
    assert math.log(found.validation_nll) == pytest.approx(
        planted.log_loss(config.replace(num_train=round(512 * share)))
    )


def test_a_probe_is_never_worse_than_the_base(recorded):
    config = config_of(planted.plan(), place=0)
    found = World(recorded, 1).result(Trial(_space.shortened(config, 1 / 128), Role.PROBE))
    assert found.validation_nll == pytest.approx(planted.BASE_NLL)


def test_a_probe_diverges_where_the_recorded_ones_did(recorded):
    config = config_of(planted.plan(), place=8)
    found = World(recorded, 0).result(Trial(_space.shortened(config, 1 / 4), Role.PROBE))
    assert (found.status, found.validation_nll) == (Status.DIVERGED, planted.BASE_NLL)


def test_a_probe_with_no_smaller_size_is_lost():
    recorded = Recorded([r for r in planted.results() if r.config.num_train == 512])
    config = config_of(planted.plan())
    found = World(recorded, 0).result(Trial(_space.shortened(config, 1 / 4), Role.PROBE))
    assert found.status is Status.LOST and "no smaller number of rows" in found.reason


def test_judging_leaves_out_the_seed_that_was_selected_on(recorded):
    config = config_of(planted.plan(), place=4)
    for seed in range(3):
        others = np.mean([planted.deviation(other) for other in range(3) if other != seed])
        assert World(recorded, seed).log_loss(config) == pytest.approx(planted.log_loss(config) + others, abs=1e-9)


def test_a_diverged_rate_is_judged_by_the_bases_loss(recorded):
    config = config_of(planted.plan(), place=8)
    assert World(recorded, 0).log_loss(config) == pytest.approx(math.log(planted.BASE_NLL))


def test_more_noise_stretches_the_deviation_of_a_seed(recorded):
    config = config_of(planted.plan(), place=4)
    found = World(recorded, 0, noise=5.0).result(Trial(config, Role.SELECT))
    expected = planted.log_loss(config) + 5 * planted.deviation(0)
    assert math.log(found.validation_nll) == pytest.approx(expected)


def test_more_noise_is_invented_where_one_seed_was_recorded():
    everywhere = planted.results()
    recorded = Recorded([r for r in everywhere if r.config.init_seed == 0 or r.config.batch_size != 4])
    assert recorded.sd_log == pytest.approx(planted.SEED_SD)
    config = config_of(planted.plan(), place=4)
    losses = [
        math.log(World(recorded, 0, 5.0, replay).result(Trial(config, Role.SELECT)).validation_nll)
        for replay in range(400)
    ]
    # A standard deviation of 400 draws is known to 3.5 %.
    assert np.std(losses) == pytest.approx(4 * planted.SEED_SD, rel=0.15)
    assert losses[0] == math.log(World(recorded, 0, 5.0, 0).result(Trial(config, Role.SELECT)).validation_nll)


def test_the_grid_pays_for_everything_and_chooses_the_planted_best(recorded):
    plan = planted.plan()
    found = replayed(grid, plan, World(recorded, 1))
    assert found.cost == pytest.approx(len(plan.arms[0].configs))
    # Seed 1 has no deviation, so the grid chooses each batch size's planted best.
    chosen = {config.batch_size: config.learning_rate for config in found.chosen}
    assert chosen[4] == planted.RATES[3] and chosen[16] == planted.RATES[4]


def test_a_search_pays_for_its_budget_and_no_more(recorded):
    plan = planted.plan(search="uniform", budget=6)
    found = replayed(uniform, plan, World(recorded, 0))
    assert found.cost == pytest.approx(6) and len(found.results) == 6 and len(found.chosen) == 1


def test_rounds_wait_for_each_other_and_wide_packs_are_cheaper(recorded):
    plan = planted.plan(search="uniform", budget=6)
    wide, narrow = (replayed(uniform, plan, World(recorded, 0), width) for width in (6, 1))
    assert wide.seconds == pytest.approx(10 * (6 + HALF_WIDTH))
    assert narrow.seconds == pytest.approx(10 * 6 * (1 + HALF_WIDTH))


def test_shorter_trials_of_a_pack_come_back_first(recorded):
    plan = planted.plan()
    config = config_of(plan)
    full, probe = Trial(config, Role.SELECT), Trial(_space.shortened(config, 1 / 4), Role.PROBE)
    answers = iter([Proposal((full, probe), (), False), Proposal((), (), True)])
    (choice,) = _space.choices(plan)
    found = replay(lambda results: next(answers), World(recorded, 0), choice.cost, Clock(1.0, 8))
    assert [result.role for result in found.results] == [Role.PROBE, Role.SELECT]


def test_smoothing_keeps_a_parabola_and_halves_noise():
    rates = [2.0**k for k in range(9)]
    truth = [0.02 * (k - 4) ** 2 for k in range(9)]
    exact = Valley({rate: {0: value} for rate, value in zip(rates, truth, strict=True)}, 5.0).smoothed()
    assert list(exact.values()) == pytest.approx(truth, abs=1e-12)
    draws = np.random.default_rng(0).normal(0, 0.01, size=(2000, 9))
    errors = [
        list(Valley({r: {0: t + d} for r, t, d in zip(rates, truth, draw, strict=True)}, 5.0).smoothed().values())
        for draw in draws
    ] - np.array(truth)
    # The variance of a local quadratic's fit in the middle of an even grid, from its own weights.
    offsets = np.arange(-2, 3)
    weights = (1 - np.abs(offsets / WINDOW) ** 3) ** 3
    design = np.stack([np.ones(5), offsets, offsets**2], axis=1)
    row = np.linalg.solve(design.T @ (weights[:, None] * design), design.T * weights)[0]
    assert errors[:, 4].std() == pytest.approx(0.01 * np.sqrt((row**2).sum()), rel=0.05)


def test_smoothing_does_not_look_across_a_cliff():
    rates = [2.0**k for k in range(9)]
    losses = {rate: {0: None if place > 5 else 0.02 * (place - 4) ** 2} for place, rate in enumerate(rates)}
    found = Valley(losses, 5.0).smoothed()
    assert [found[rate] for rate in rates[6:]] == [5.0] * 3
    assert found[rates[5]] == pytest.approx(0.02)
