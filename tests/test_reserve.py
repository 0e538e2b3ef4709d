"""The reserve of learning rates: outward at an edge, inside otherwise, equal for all, resumable at every result."""

import dataclasses
import math

import pytest

from small_study import TEXT, edited, forge_hashes, graded, plan_of, result_of
from welltuned.costs import budget
from welltuned.records import Config, Result, Role, Status
from welltuned.search import _reserve
from welltuned.search.grid import SEARCH
from welltuned.spec import Spec


@pytest.fixture(autouse=True)
def forged(monkeypatch):
    forge_hashes(monkeypatch)


def spec_of(reserve: int, **changes) -> Spec:
    changes = {"axes": {"batch_size": [16], "learning_rate": [1e-3, 1e-2, 1e-1]}, **changes}
    return Spec.model_validate(edited(search={"reserve": reserve}, **changes))


def valley(best: float):
    """Return a loss that is a parabola in the logarithm of the learning rate."""
    return lambda config: 1.0 + math.log10(config.learning_rate / best) ** 2


def finish(plan, loss, results: list[Result] | None = None, status=lambda config: Status.FINISHED) -> list[Result]:
    """Let the search have all that it wants, one proposal after the other."""
    results = list(results or [])
    while not (proposal := SEARCH.propose(plan, results)).finished:
        results += [result_of(trial, loss(trial.config), status(trial.config)) for trial in proposal.trials]
        done = {(result.trial_id, result.role) for result in results}
        assert all((trial.id, trial.role) in done for trial in proposal.exams)
        examined = {trial.id for trial in proposal.exams}
        results = [graded(one) if one.role is Role.CONFIRM and one.trial_id in examined else one for one in results]
    return results


def rates(results, method="lora") -> list[float]:
    return [one.config.learning_rate for one in results if one.role is Role.SELECT and one.config.method == method]


def winner(results, method="lora") -> float:
    (rate,) = {r.config.learning_rate for r in results if r.role is Role.CONFIRM and r.config.method == method}
    return rate


def test_a_best_rate_on_the_upper_edge_is_followed_outward_by_the_last_step():
    results = finish(plan_of(spec_of(2)), valley(10.0))
    assert rates(results)[3:] == [1.0, 10.0]
    assert winner(results) == 10.0


def test_a_best_rate_on_the_lower_edge_is_followed_outward_too():
    results = finish(plan_of(spec_of(2)), valley(1e-5))
    assert rates(results)[3:] == pytest.approx([1e-4, 1e-5])
    assert winner(results) == pytest.approx(1e-5)


def test_what_is_left_once_the_edge_is_passed_is_spent_inside():
    """1 is best after one step out, 10 is worse, so the third goes between: 1 and its better neighbour."""
    results = finish(plan_of(spec_of(3)), valley(0.5))
    assert rates(results)[3:] == pytest.approx([1.0, 10.0, math.sqrt(0.1 * 1.0)])
    assert winner(results) == pytest.approx(math.sqrt(0.1))


def test_a_method_that_needs_no_extension_spends_its_reserve_inside():
    """Nearer to the better neighbour first, then in the gap on the other side, which is then the wider one."""
    results = finish(plan_of(spec_of(2)), valley(1.2e-2))
    assert rates(results)[3:] == pytest.approx([math.sqrt(1e-2 * 1e-1), math.sqrt(1e-3 * 1e-2)])
    assert winner(results) == 1e-2


def test_the_edge_and_the_inside_cost_every_method_the_same():
    """LoRA's optimum is inside, PiSSA's far below: both get as many trials."""
    plan = plan_of(spec_of(3))
    low, inside = valley(1e-6), valley(1e-2)
    results = finish(plan, lambda config: low(config) if config.method == "pissa" else inside(config))
    assert len(rates(results, "lora")) == len(rates(results, "pissa")) == 6
    assert min(rates(results, "pissa")) == pytest.approx(1e-6)
    assert min(rates(results, "lora")) == 1e-3
    assert budget.unequal(plan.budgets) == ()


def test_a_smaller_grid_is_made_up_for_by_a_larger_reserve():
    spec = spec_of(1, methods={"pissa": {"learning_rate": [1e-2]}})
    assert [one.num_reserve for one in plan_of(spec).budgets] == [1, 3]
    results = finish(plan_of(spec), valley(1e-2))
    assert len(rates(results, "lora")) == len(rates(results, "pissa")) == 4


def test_fewer_cells_are_made_up_for_and_what_does_not_divide_goes_to_the_first():
    """Full fine-tuning has no rank, so of two ranks it has one cell: it may try as many rates in that."""
    axes = {"method": ["lora", "full"], "rank": [4, 8], "batch_size": [4, 16]}
    plan = plan_of(Spec.model_validate(edited(search={"reserve": 1}, axes=axes)))
    assert {one.method: (one.num_trials, one.num_reserve) for one in plan.budgets} == {"lora": (12, 4), "full": (12, 8)}
    arms = tuple(dataclasses.replace(arm, configs=arm.configs[: 3 if arm.name == "full" else 8]) for arm in plan.arms)
    allotted = budget.allot(arms, plan.cell, (), 1)
    full = [number for name, number in allotted.items() if name[0] == "full"]
    assert (sum(full), full) == (12 - 3, [5, 4])


def test_without_a_reserve_nothing_is_tried_beyond_the_grid():
    results = finish(plan_of(spec_of(0)), valley(10.0))
    assert rates(results) == [1e-3, 1e-2, 1e-1]
    uneven = plan_of(spec_of(0, methods={"pissa": {"learning_rate": [1e-2]}}))
    assert [note for note in uneven.notes if note.startswith("Budgets are not equal: lora 3 trials")]


def test_it_resumes_at_every_result_and_in_any_order():
    """The same trials are wanted whatever the history was cut at, and however it is ordered."""
    spec = Spec.parse(TEXT.replace("[search]", "[search]\nreserve = 3\nseeds = 2"))
    plan = plan_of(spec)
    loss = lambda config: valley(0.3)(config) + 0.01 * config.init_seed  # noqa: E731
    whole = finish(plan, loss)
    for cut in range(len(whole)):
        again = finish(plan, loss, whole[:cut][::-1])
        assert {(one.trial_id, one.role) for one in again} == {(one.trial_id, one.role) for one in whole}


def test_a_diverged_rate_counts_with_the_base_and_a_lost_one_is_passed_over():
    plan = plan_of(spec_of(2))
    diverged = finish(plan, valley(1.0), status=lambda c: Status.DIVERGED if c.learning_rate > 0.5 else Status.FINISHED)
    assert rates(diverged)[3:] == pytest.approx([1.0, math.sqrt(1e-1)])
    losses: dict[float, float | None] = {1e-3: 2.0, 1e-2: 1.0, 1e-1: None}
    assert _reserve.next_rate(losses) == pytest.approx(math.sqrt(1e-3 * 1e-2))
    assert _reserve.next_rate({1e-3: None}) is None


def test_a_cell_with_one_rate_looks_on_both_sides():
    config = plan_of(spec_of(0)).arms[0].configs[0].replace(learning_rate=1e-2)
    done: dict[Config, float] = {config: valley(1e-3)(config)}
    for _ in range(4):
        spent = _reserve.spend([config], 4, done.__contains__, done.get)
        done |= {wanted: valley(1e-3)(wanted) for wanted in spent.wanted}
    tried = [one.learning_rate for one in done]
    step = math.sqrt(10)
    assert tried[:4] == pytest.approx([1e-2, 1e-2 * step, 1e-2 / step, 1e-3])


def test_the_reserve_is_in_the_hash_and_its_default_is_not():
    assert (
        spec_of(0).hash()
        == Spec.model_validate(edited(axes={"batch_size": [16], "learning_rate": [1e-3, 1e-2, 1e-1]})).hash()
    )
    assert spec_of(1).hash() != spec_of(0).hash()
    assert Spec.parse(spec_of(2).text()).text() == spec_of(2).text()
