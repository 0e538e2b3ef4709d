"""Random search on invented results: what it draws for its budget, and whom it confirms."""

import pytest

from small_study import TEXT, forge_hashes, graded, plan_of, result_of
from welltuned.errors import InputError
from welltuned.records import Role
from welltuned.search import _space, uniform
from welltuned.spec import Spec


def plan_with(settings: str):
    return plan_of(Spec.parse(TEXT.replace("[search]", f'[search]\nsearch = "uniform"\n{settings}')))


@pytest.fixture(autouse=True)
def forged(monkeypatch):
    forge_hashes(monkeypatch)


def loss_of(config) -> float:
    return 1.0 + config.learning_rate + 0.001 * config.batch_size


def rounds(plan) -> list:
    """Run a search to its end on invented losses, and return its proposals."""
    proposals, results = [], []
    while True:
        proposals.append(uniform.SEARCH.propose(plan, results))
        if proposals[-1].finished:
            return proposals
        results += [result_of(trial, loss_of(trial.config)) for trial in proposals[-1].trials]
        wanted = {trial.id for trial in proposals[-1].exams}
        results = [graded(r) if r.trial_id in wanted else r for r in results]


def test_each_method_trains_what_its_budget_pays_for(monkeypatch):
    select = uniform.SEARCH.propose(plan_with("budget = 3"), []).trials
    assert {trial.role for trial in select} == {Role.SELECT}
    assert [trial.config.method for trial in select] == ["lora"] * 3 + ["pissa"] * 3
    assert len({trial.id for trial in select}) == 6


def test_a_larger_budget_goes_on_where_a_smaller_one_ended():
    small, large = (uniform.SEARCH.propose(plan_with(f"budget = {size}"), []).trials for size in (2, 4))
    for method in ("lora", "pissa"):
        drawn = [[trial.id for trial in trials if trial.config.method == method] for trials in (small, large)]
        assert drawn[1][:2] == drawn[0] and len(drawn[1]) == 4


def test_every_candidate_is_trained_on_all_selection_seeds():
    trials = uniform.SEARCH.propose(plan_with("budget = 5\nseeds = 2"), []).trials
    assert len(trials) == 2 * 4  # two candidates of each method on two seeds; a third would cost one run too many
    assert {trial.config.init_seed for trial in trials} == {0, 1}


def test_the_best_of_each_method_is_rerun_and_graded():
    plan = plan_with("budget = 4")
    proposals = rounds(plan)
    confirm = proposals[1].trials
    assert {trial.role for trial in confirm} == {Role.CONFIRM}
    assert {(t.config.method, t.config.batch_size, t.config.learning_rate) for t in confirm} == {
        ("lora", 4, 1e-3),
        ("pissa", 4, 1e-3),
    }
    assert len(confirm) == 4


def test_a_probe_costs_its_share():
    choice = _space.choices(plan_with("budget = 4"))[0]
    config = choice.candidates[0].config
    probe = _space.shortened(config, 1 / 8)
    assert choice.cost(config) == 1
    assert choice.cost(probe) == pytest.approx((512 / 8 + 32) / (512 + 4 * 32))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ("", "got 'none', expected what search 'uniform' may spend"),
        ("budget = 1\nseeds = 2", "search.budget: got 1.0, expected at least 2"),
        ("budget = 4\nreserve = 1", "search.reserve: got 1, expected 0"),
    ],
)
def test_a_budget_that_cannot_be_is_refused(settings, says):
    with pytest.raises(InputError, match=says):
        plan_with(settings)


def test_grid_refuses_a_budget():
    with pytest.raises(InputError, match=r"search\.budget: got 4\.0, expected nothing: grid trains all there is"):
        Spec.parse(TEXT.replace("[search]", "[search]\nbudget = 4"))
