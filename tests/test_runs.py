"""Our own results as the table that analyses read: which number each trial counts with, and what may select."""

import pytest

import synthetic
from welltuned.analysis import runs
from welltuned.records import Role, Status

RESULTS, _ = synthetic.study()


def test_every_scored_trial_is_a_run_in_loss():
    table = runs.of_results(RESULTS)
    scored = [result for result in RESULTS if result.status in (Status.FINISHED, Status.DIVERGED)]
    assert len(table.runs) == len(scored)
    assert not table.higher_is_better


def test_only_selection_trials_may_select():
    table = runs.of_results(RESULTS)
    assert sum(run.selected for run in table.runs) == sum(result.role is Role.SELECT for result in RESULTS)
    assert not any(run.selected for run in runs.of_results(RESULTS, runs.ACCURACY).runs)


def test_accuracy_has_reruns_only_and_counts_items():
    table = runs.of_results(RESULTS, runs.ACCURACY)
    assert {run.num_items for run in table.runs if not run.diverged} == {200}
    assert len(table.runs) == sum(result.role is Role.CONFIRM for result in RESULTS)


def test_the_sign_of_a_score_makes_larger_better():
    table = runs.Table((runs.Run("a", 0.5), runs.Run("b", 0.4)), "loss", higher_is_better=False)
    assert max(table.runs, key=table.score).method == "b"
    assert table.better(0.4, 0.5)


def test_an_unknown_metric_is_refused():
    with pytest.raises(ValueError, match="got 'bleu', expected 'validation_nll' or 'test_accuracy'"):
        runs.of_results(RESULTS, "bleu")
