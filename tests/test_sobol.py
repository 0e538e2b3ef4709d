"""Sobol search: its points are those of the sequence, spread evenly, each on a candidate of its own."""

import itertools

import numpy as np
import pytest

from searching import answering, plan_with, run, wide
from small_study import forge_hashes
from welltuned import plugins
from welltuned.records import Role
from welltuned.search import _axes, _space, sobol


@pytest.fixture(autouse=True)
def forged(monkeypatch):
    forge_hashes(monkeypatch)


def trials_of(settings: str, text: str):
    plan = plan_with("sobol", settings, text)
    return plugins.load("searches", "sobol").propose(plan, []).trials


def test_every_half_quarter_and_eighth_of_the_range_gets_its_share():
    """The property that defines a Sobol sequence: 2^k points, one in each of 2^k equal parts of every axis."""
    rates = [10 ** (-4 + (i + 0.5) / 16 * 3) for i in range(16)]
    text = wide(str(rates), "[4, 8, 16, 32]")
    for seed in range(5):
        trials = trials_of("budget = 16", f"seed = {seed}\n{text}")
        counts = np.histogram([np.log10(t.config.learning_rate) for t in trials], bins=8, range=(-4, -1))[0]
        assert sorted({t.config.batch_size for t in trials}) == [4, 8, 16, 32]
        # 16 points are 2 in each eighth; one that finds its candidate taken goes next door, so 1 may be missing.
        assert counts.min() >= 1 and counts.max() <= 3


def test_it_leaves_smaller_holes_than_random_draws():
    """Mean squared distance from a candidate to the nearest chosen one, over 12 seeds, beside uniform's."""
    holes = {"sobol": [], "uniform": []}
    for name, seed in itertools.product(holes, range(12)):
        plan = plan_with(name, "budget = 8", f"seed = {seed}\n{wide()}")
        chosen = {t.config for t in plugins.load("searches", name).propose(plan, []).trials}
        choice = _space.choices(plan)[0]
        points = np.array(_axes.box(choice).points())
        mine = points[[place for place, c in enumerate(choice.candidates) if c.config in chosen]]
        holes[name].append(((points[:, None] - mine[None]) ** 2).sum(-1).min(1).mean())
    assert np.mean(holes["sobol"]) < 0.9 * np.mean(holes["uniform"])


def test_a_larger_budget_goes_on_where_a_smaller_one_ended():
    small, large = (trials_of(f"budget = {size}", wide()) for size in (3, 11))
    assert [t.id for t in large][:3] == [t.id for t in small] and len(large) == 11


def test_every_candidate_is_taken_once_where_the_budget_pays_for_all():
    plan = plan_with("sobol", "budget = 8")
    trials = plugins.load("searches", "sobol").propose(plan, []).trials
    assert sorted(t.id for t in trials) == sorted(t.id for arm in plan.arms for t in map(full, arm.configs))


def full(config):
    return _space.Candidate((config,)).trials[0]


def test_each_point_takes_the_nearest_free_candidate():
    """Against a plain reference on the logarithms, with an axis of uneven steps."""
    plan = plan_with("sobol", "budget = 6", wide(batches="[4, 8, 64]"))
    choice = _space.choices(plan)[0]

    def place(values, value):
        logs = np.log(sorted(values))
        low, high = logs[0] - (logs[1] - logs[0]) / 2, logs[-1] + (logs[-1] - logs[-2]) / 2
        return (np.log(value) - low) / (high - low)

    configs = [candidate.config for candidate in choice.candidates]
    rates, batches = {c.learning_rate for c in configs}, {c.batch_size for c in configs}
    where = np.array([[place(rates, c.learning_rate), place(batches, c.batch_size)] for c in configs])
    free, expected = set(range(len(configs))), []
    for target in sobol._sequence(plan, choice, 6, 2):
        expected.append(min(free, key=lambda i: np.linalg.norm(where[i] - np.array(target))))
        free.discard(expected[-1])
    assert [candidate.config for candidate in sobol.first(plan, choice, 6)] == [configs[i] for i in expected]


def test_settings_that_are_not_numbers_are_an_axis_too():
    text = wide("[1e-3, 1e-2]", "[4]").replace("[axes]", '[axes]\nlr_scheduler_type = ["constant", "cosine", "linear"]')
    choice = _space.choices(plan_with("sobol", "budget = 6", text))[0]
    box = _axes.box(choice)
    assert {axis.field: axis.values for axis in box.axes} == {
        "lr_scheduler_type": ("constant", "cosine", "linear"),
        "learning_rate": (1e-3, 1e-2),
    }
    assert len(set(box.points())) == 6


def test_one_candidate_has_no_axis_and_is_trained():
    plan = plan_with("sobol", "budget = 4", wide("[1e-3]", "[4]"))
    proposals, _ = run(plan, answering(lambda config: 1.0))
    assert [len(p.trials) for p in proposals] == [1, 2, 0, 0]  # itself, its reruns, their grading, the end
    assert {t.role for t in proposals[0].trials} == {Role.SELECT}
