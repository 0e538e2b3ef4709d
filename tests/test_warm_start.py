"""A warm start: the rules' candidate comes first in every search that has no expectation of its own."""

import math

import pytest

from searching import answering, plan_with, run, wide
from small_study import forge_hashes, plan_of
from welltuned.errors import InputError
from welltuned.records import Role
from welltuned.search import _prior, _space, _warm
from welltuned.spec import Spec

SEARCHES = ("uniform", "sobol", "halving", "asha", "one_epoch", "optuna")


@pytest.fixture(autouse=True)
def forged(monkeypatch):
    forge_hashes(monkeypatch)


def loss_of(config) -> float:
    return 1.0 + abs(config.learning_rate - 1e-2) + 0.001 * config.batch_size


def first_of(plan):
    """Return the configuration of the first full or short trial that a search trained, without its length."""
    _, results = run(plan, answering(loss_of))
    config = next(result.config for result in results if result.role is not Role.CONFIRM)
    return config.learning_rate, config.batch_size, config.rank


@pytest.mark.parametrize("search", SEARCHES)
def test_the_expected_candidate_is_trained_first(search):
    warm = plan_with(search, "budget = 6\nwidth = 1\nwarm_start = true", wide())
    wanted = _warm.expected(warm, _space.choices(warm)[0]).config
    assert first_of(warm) == (wanted.learning_rate, wanted.batch_size, wanted.rank)


@pytest.mark.parametrize("search", SEARCHES)
def test_a_budget_of_one_run_trains_the_expected_candidate(search):
    warm = plan_with(search, "budget = 1\nwarm_start = true", wide())
    _, results = run(warm, answering(loss_of))
    (only,) = [result.config for result in results if result.role is Role.SELECT]
    assert only == _warm.expected(warm, _space.choices(warm)[0]).config


def test_the_expected_candidate_is_nearest_to_the_rule_at_the_usual_batch_size():
    plan = plan_with("uniform", "budget = 6\nwarm_start = true", wide())
    (choice, *_) = _space.choices(plan)
    configs = [candidate.config for candidate in choice.candidates]
    chosen = _warm.expected(plan, choice).config
    assert chosen.batch_size == min({c.batch_size for c in configs}, key=lambda size: abs(math.log(size / 16)))
    (centre,) = _prior.rule(configs, plan.width_of, plan.sharpness_of).expected([chosen])
    off = {c.learning_rate: abs(math.log2(c.learning_rate) - centre) for c in configs}
    assert off[chosen.learning_rate] == min(off.values())


@pytest.mark.parametrize(
    ("search", "why"),
    [
        ('search = "guided"\nbudget = 4', "false: guided always begins with what the rules expect"),
        ("", "false: grid trains all there is"),
    ],
)
def test_a_warm_start_is_refused_where_it_would_change_nothing(search, why):
    text = wide().replace("[search]", f"[search]\n{search}\nwarm_start = true")
    with pytest.raises(InputError) as raised:
        plan_of(Spec.parse(text))
    assert f"search.warm_start: got True, expected {why}; remove warm_start, or choose another search" in str(
        raised.value
    )
