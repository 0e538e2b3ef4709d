"""Grid search on invented results: what it wants next, whom it selects, and when it looks at the test split."""

import dataclasses
import itertools
import random

import pytest

from small_study import TEXT, forge_hashes, graded, plan_of, result_of
from welltuned import plugins
from welltuned.records import Result, Role, Status, Trial
from welltuned.search.grid import SEARCH
from welltuned.spec import Spec


@pytest.fixture
def plan(monkeypatch):
    forge_hashes(monkeypatch)
    return plan_of(Spec.parse(TEXT.replace("[search]", "[search]\nseeds = 2")))


def loss_of(config) -> float:
    """Let 1e-2 be best at batch 16 and 1e-3 at batch 4; the seed moves it a little."""
    best = 1e-2 if config.batch_size == 16 else 1e-3
    return 1.0 + (config.learning_rate != best) + 0.01 * config.init_seed


def selected(plan, loss=loss_of) -> list[Result]:
    return [result_of(trial, loss(trial.config)) for trial in plan.trials()]


def confirm(plan, results) -> tuple[Trial, ...]:
    proposal = SEARCH.propose(plan, results)
    assert {trial.role for trial in proposal.trials} == {Role.CONFIRM}
    return proposal.trials


def winners(trials) -> dict:
    return {(t.config.method, t.config.batch_size): t.config.learning_rate for t in trials}


def test_it_begins_with_every_selection_trial(plan):
    proposal = SEARCH.propose(plan, [])
    assert proposal.trials == plan.trials()
    assert (proposal.exams, proposal.finished) == ((), False)


def test_it_wants_only_what_is_missing_until_all_of_it_is_there(plan):
    results = selected(plan)
    for num_done in range(len(results)):
        missing = SEARCH.propose(plan, results[:num_done])
        assert missing.trials == plan.trials()[num_done:]
        assert not missing.exams and not missing.finished


def test_winners_have_the_lowest_mean_validation_loss(plan):
    trials = confirm(plan, selected(plan))
    expected = {(m, b): (1e-2 if b == 16 else 1e-3) for m in ("lora", "pissa") for b in (4, 16)}
    assert winners(trials) == expected
    assert len(trials) == 4 * 2  # cells x fresh seeds
    assert {t.config.init_seed for t in trials} == {1000, 1001}


def test_selection_equals_a_plain_search_on_random_losses(plan):
    draw = random.Random(0)
    for _ in range(20):
        losses = {trial.id: draw.random() for trial in plan.trials()}
        trials = confirm(plan, [result_of(t, losses[t.id]) for t in plan.trials()])
        for method, batch_size in itertools.product(("lora", "pissa"), (4, 16)):
            means = {}
            for rate in (1e-3, 1e-2):
                members = [
                    t
                    for t in plan.trials()
                    if (t.config.method, t.config.batch_size, t.config.learning_rate) == (method, batch_size, rate)
                ]
                means[rate] = sum(losses[t.id] for t in members) / len(members)
            assert winners(trials)[method, batch_size] == min(means, key=lambda rate: means[rate])


def test_the_order_of_results_does_not_matter(plan):
    results = selected(plan)
    assert SEARCH.propose(plan, results[::-1]) == SEARCH.propose(plan, results)


def test_a_tie_goes_to_the_lower_learning_rate(plan):
    assert set(winners(confirm(plan, selected(plan, lambda config: 1.0))).values()) == {1e-3}


def test_a_diverged_trial_counts_with_the_bases_loss(plan):
    """One seed of 1e-2 diverges: its mean is then (1 + 3) / 2, above the 1.5 of the other learning rate."""
    results = []
    for trial in plan.trials():
        high = trial.config.learning_rate == 1e-2
        diverged = high and trial.config.init_seed == 1
        status = Status.DIVERGED if diverged else Status.FINISHED
        results.append(result_of(trial, (None if diverged else 1.0) if high else 1.5, status))
    assert set(winners(confirm(plan, results)).values()) == {1e-3}


def test_a_lost_trial_is_left_out_and_not_scored(plan):
    """The rate 1e-2 is worse in the seed that is left; where both seeds are lost the other rate wins."""
    results = [
        result_of(t, None, Status.LOST, reason="lost 3 times") if t.config.learning_rate == 1e-3 else result_of(t, 9.0)
        for t in plan.trials()
    ]
    assert set(winners(confirm(plan, results)).values()) == {1e-2}


def test_a_cell_of_which_everything_is_lost_has_no_winner(plan):
    results = [
        result_of(t, None, Status.LOST) if t.config.batch_size == 4 else result_of(t, 1.0) for t in plan.trials()
    ]
    assert {t.config.batch_size for t in confirm(plan, results)} == {16}


def test_exams_come_after_all_training_and_only_for_finished_finalists(plan):
    results = selected(plan)
    finalists = confirm(plan, results)
    some = results + [result_of(trial) for trial in finalists[:-1]]
    assert SEARCH.propose(plan, some).exams == ()
    done = results + [
        result_of(t, 1.0, Status.DIVERGED if i == 0 else Status.FINISHED) for i, t in enumerate(finalists)
    ]
    proposal = SEARCH.propose(plan, done)
    assert (proposal.trials, proposal.finished) == ((), False)
    assert proposal.exams == finalists[1:]


def test_it_finishes_when_every_finalist_is_graded(plan):
    results = selected(plan)
    done = results + [graded(result_of(trial)) for trial in confirm(plan, results)]
    assert SEARCH.propose(plan, done).finished


def test_a_task_without_grades_finishes_without_exams(plan):
    plan = dataclasses.replace(plan, graded_tasks=frozenset())
    results = selected(plan)
    done = results + [result_of(trial) for trial in confirm(plan, results)]
    proposal = SEARCH.propose(plan, done)
    assert proposal.finished and not proposal.exams


def test_without_fresh_seeds_nothing_is_confirmed(monkeypatch):
    forge_hashes(monkeypatch)
    plan = plan_of(Spec.parse(TEXT.replace("fresh_seeds = 2", "fresh_seeds = 0")))
    assert SEARCH.propose(plan, selected(plan)).finished


def test_it_is_a_plugin():
    assert plugins.load("searches", "grid") is SEARCH
