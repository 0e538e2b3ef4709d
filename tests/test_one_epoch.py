"""Train briefly, finish the best: how long the probes are, who is finished, and what happens when probes fail."""

import pytest

from searching import answering, diverged, lost, plan_with, run, wide
from small_study import forge_hashes, result_of
from welltuned.costs import flops
from welltuned.records import Role
from welltuned.search import _space


@pytest.fixture(autouse=True)
def forged(monkeypatch):
    forge_hashes(monkeypatch)


def loss_of(config) -> float:
    return 1.0 + abs(config.learning_rate - 1e-2) + 0.001 * config.batch_size


def trials_of(results, role):
    return [result for result in results if result.role is role]


def cost_of(plan, results) -> float:
    choice = _space.choices(plan)[0]
    return sum(choice.cost(r.config) for r in results if r.role is not Role.CONFIRM)


@pytest.mark.parametrize(("budget", "share"), [(31.2, 4), (20.8, 8), (12.5, 16), (8.9, 32)])
def test_probes_are_as_long_as_half_of_the_budget_allows(budget, share):
    """52 candidates; a probe of 512/share rows and 32 for its validation costs that over 512 + 4 x 32."""
    plan = plan_with("one_epoch", f"budget = {budget}", wide())
    assert 52 * (512 / share + 32) / 640 <= budget / 2
    proposals, _ = run(plan, answering(loss_of))
    assert len(proposals[0].trials) == 52
    # Whole optimizer steps: rounded to the batch size.
    assert all(abs(flops.num_samples(t.config) - 512 / share) <= t.config.batch_size / 2 for t in proposals[0].trials)
    longer = 2 * 512 / share
    assert share == 4 or 52 * (longer + 32) / 640 > budget / 2


@pytest.mark.parametrize("budget", [2, 5, 16, 37.5])
def test_the_best_probes_are_finished_with_what_is_left_of_the_budget(budget):
    plan = plan_with("one_epoch", f"budget = {budget}", wide())
    _, results = run(plan, answering(loss_of))
    probes, full = trials_of(results, Role.PROBE), trials_of(results, Role.SELECT)
    assert budget - 1 < cost_of(plan, results) <= budget + 1e-9
    ranked = sorted(probes, key=lambda r: r.validation_nll)[: len(full)]
    assert {(r.config.learning_rate, r.config.batch_size) for r in ranked} == {
        (r.config.learning_rate, r.config.batch_size) for r in full
    }


def test_a_budget_of_one_run_trains_one_candidate():
    _, results = run(plan_with("one_epoch", "budget = 1", wide()), answering(loss_of))
    assert [r.role for r in results].count(Role.SELECT) == 1 and not trials_of(results, Role.PROBE)


def test_it_finishes_on_all_selection_seeds_and_probes_on_the_first():
    _, results = run(plan_with("one_epoch", "budget = 12\nseeds = 2", wide()), answering(loss_of))
    assert {r.config.init_seed for r in trials_of(results, Role.PROBE)} == {0}
    full = trials_of(results, Role.SELECT)
    assert [r.config.init_seed for r in full].count(0) == [r.config.init_seed for r in full].count(1) == len(full) / 2


def test_a_diverged_probe_comes_last_and_a_lost_one_is_not_scored():
    """Where the rate is above 1e-3 the probe diverges; at batch 4 the machine loses it."""

    def answer(trial):
        if trial.role is Role.PROBE and trial.config.batch_size == 4:
            return lost(trial)
        return diverged(trial) if trial.config.learning_rate > 1e-3 else result_of(trial, loss_of(trial.config))

    _, results = run(plan_with("one_epoch", "budget = 16", wide()), answer)
    finished = [r.config for r in trials_of(results, Role.SELECT)]
    assert finished and all(c.learning_rate <= 1e-3 and c.batch_size != 4 for c in finished)


def test_the_best_full_trial_is_chosen_whatever_its_probe_said():
    """Full losses are the reverse of the probes': the worst of the finished ones by probe wins."""

    def answer(trial):
        loss = loss_of(trial.config)
        return result_of(trial, loss if trial.role is Role.PROBE else 4 - loss)

    _, results = run(plan_with("one_epoch", "budget = 16", wide()), answer)
    full, confirmed = trials_of(results, Role.SELECT), trials_of(results, Role.CONFIRM)
    best = max(full, key=lambda r: loss_of(r.config)).config
    assert len(full) > 1 and len(confirmed) == 2
    assert {(r.config.learning_rate, r.config.batch_size) for r in confirmed} == {(best.learning_rate, best.batch_size)}
