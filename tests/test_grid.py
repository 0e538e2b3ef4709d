"""What a table says of its configurations: means, errors, tuned cells, and what intervals over few seeds are worth."""

import dataclasses
import math

import numpy as np
import pytest
from scipy import stats

import planted
import synthetic
from welltuned import rng
from welltuned.analysis import estimate, grid, optimum, runs
from welltuned.analysis.runs import Run, Table


def test_means_and_deviations_are_numpys():
    table = planted.table(lambda run: 0.5, rates=(1e-3, 1e-2), seeds=4, noise=0.1)
    for member in grid.means(table):
        values = [run.value for run in table.runs if run.learning_rate == member.place.learning_rate]
        assert member.value == pytest.approx(np.mean(values))
        assert member.sd == pytest.approx(np.std(values, ddof=1))
        assert member.num_seeds == 4


def test_a_published_mean_and_deviation_joins_single_runs_as_if_all_were_there():
    values = [0.1, 0.4, 0.3, 0.9, 0.7]
    part = Run("a", float(np.mean(values[:3])), 1e-3, sd=float(np.std(values[:3], ddof=1)), num_seeds=3)
    table = Table((part, Run("a", 0.9, 1e-3), Run("a", 0.7, 1e-3)), "accuracy", True)
    (member,) = grid.means(table)
    assert member.value == pytest.approx(np.mean(values))
    assert member.sd == pytest.approx(np.std(values, ddof=1))
    assert member.num_seeds == 5


def test_a_mean_whose_spread_is_not_stated_has_none():
    (member,) = grid.means(Table((Run("a", 0.5, 1e-3, num_seeds=3),), "accuracy", True))
    assert member.sd is None
    assert grid.uncertain(member, {}).error is None


def test_one_seed_borrows_the_spread_of_repeated_configurations_of_its_problem():
    repeated = [Run("a", value, 1e-3, 16, seed=str(at)) for at, value in enumerate((0.5, 0.7, 0.6))]
    single, elsewhere = Run("a", 0.4, 1e-2, 16), Run("a", 0.4, 1e-2, 16, problem=(("task", "other"),))
    table = Table((*repeated, single, elsewhere), "accuracy", True)
    pooled = grid.pooled_noise(table)
    found = {member.place: grid.uncertain(member, pooled) for member in grid.means(table)}
    errors = {(place.learning_rate, place.problem): one for place, one in found.items()}
    assert errors[1e-2, ()].error == pytest.approx(0.1) and errors[1e-2, ()].dof == 2
    assert errors[1e-2, (("task", "other"),)].error is None
    assert errors[1e-3, ()].error == pytest.approx(0.1 / math.sqrt(3))


def test_tuned_cells_equal_the_summary_of_our_own_results():
    results, declaration = synthetic.study(synthetic.Design(seeds=2, noise=0.01))
    from welltuned.analysis import summary

    rows = {(row.method, row.batch_size): row for row in summary.summarise(results, declaration.cell)}
    cells = grid.tuned(runs.of_results(results))
    assert len(cells) == len(rows)
    for cell in cells:
        row = rows[cell.place.method, cell.place.batch_size]
        assert (cell.place.learning_rate, cell.fresh) == (row.selected_rate, True)
        assert cell.value == pytest.approx(row.fresh_nll.mean)
        assert cell.error == pytest.approx(row.fresh_nll.sd / math.sqrt(row.fresh_nll.num_seeds))
        assert cell.selection_value == pytest.approx(row.selection_nll)
        assert cell.num_diverged == row.num_diverged


def test_the_optimum_of_runs_is_that_of_our_own_cells():
    """One estimator for both: vertex, band, edges and divergences agree; the right edge needs the base's loss."""
    results, declaration = synthetic.study()
    from welltuned.analysis import cells

    ours = {cell.key: optimum.of_cell(cell) for cell in cells.group(results, declaration.cell)}
    for tuned in grid.tuned(runs.of_results(results)):
        key = (("method", tuned.place.method), ("batch_size", tuned.place.batch_size))
        assert tuned.optimum == dataclasses.replace(ours[key], right_edge=None)
    assert any(one.num_diverged for one in ours.values())


def test_the_optimum_of_an_accuracy_is_its_maximum():
    table = planted.table(lambda run: planted.valley(run, -2.6, 0.7), seeds=1)
    (cell,) = grid.tuned(table)
    assert math.log10(cell.optimum.learning_rate) == pytest.approx(-2.6)
    assert cell.optimum.best_value == pytest.approx(max(run.value for run in table.runs))
    assert cell.value == cell.optimum.best_value and not cell.fresh


def test_only_settings_that_vary_within_a_method_set_configurations_apart():
    """A method with an alpha of its own is still compared with the others at the same learning rate."""
    one = Run("lora", 0.5, 1e-3, setting=(("alpha", "2r"), ("optimizer", "adamw")))
    other = Run("vera", 0.6, 1e-3, setting=(("alpha", "1"), ("optimizer", "adamw")))
    same = {place.without("method") for place in grid.places(Table((one, other), "accuracy", True))}
    assert len(same) == 1
    sgd = dataclasses.replace(one, setting=(("alpha", "2r"), ("optimizer", "sgd")))
    members = grid.means(Table((one, other, sgd), "accuracy", True))
    assert {member.place.setting for member in members} == {(("optimizer", "adamw"),), (("optimizer", "sgd"),)}


def test_reruns_at_two_rates_do_not_say_which_was_selected():
    fresh = [Run("lora", 0.5, rate, 16, seed=str(seed), selected=False) for rate in (1e-3, 1e-2) for seed in range(2)]
    assert grid.tuned(Table(tuple(fresh), "accuracy", True)) == ()


def test_methods_are_paired_by_seed_where_they_share_them():
    ours, theirs = [0.5, 0.6, 0.9], [0.4, 0.55, 0.8]
    both = [Run("a", value, 1e-3, seed=str(at)) for at, value in enumerate(ours)]
    both += [Run("b", value, 1e-3, seed=str(at)) for at, value in enumerate(theirs)]
    table = Table(tuple(both), "accuracy", True)
    one, other = grid.means(table)
    found = grid.advantage(one, other, table, {})
    expected = stats.ttest_rel(ours, theirs).confidence_interval()
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.basis == "paired t over 3 seeds"


def test_unpaired_means_are_compared_as_scipy_does():
    ours, theirs = [0.5, 0.6, 0.9], [0.4, 0.55, 0.8, 0.3]
    both = [Run("a", value, 1e-3, seed=str(at)) for at, value in enumerate(ours)]
    both += [Run("b", value, 1e-3, seed=f"x{at}") for at, value in enumerate(theirs)]
    table = Table(tuple(both), "loss", False)
    one, other = grid.means(table)
    found = grid.advantage(one, other, table, {})
    expected = stats.ttest_ind(theirs, ours, equal_var=False).confidence_interval()
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_the_parametric_bootstrap_covers_with_three_seeds_where_resampling_does_not():
    """The mean of four cells of three seeds each: the t draws err to the wide side, resampling to the narrow one."""
    random = rng.stream(0, "coverage")
    hits, naive, studies = 0, 0, 500
    for _ in range(studies):
        cells = random.normal(size=(4, 3))
        errors = cells.std(axis=1, ddof=1) / math.sqrt(3)
        means = [estimate.Uncertain(float(m), float(e), 2) for m, e in zip(cells.mean(axis=1), errors, strict=True)]
        found = estimate.redrawn(means, lambda values: float(values.mean()), random, 200)
        hits += found.low <= 0 <= found.high
        resampled = np.take_along_axis(cells[None], random.integers(3, size=(200, 4, 3)), axis=2).mean(axis=(1, 2))
        low, high = np.quantile(resampled, [0.025, 0.975])
        naive += low <= 0 <= high
    assert hits / studies >= 0.95
    assert naive / studies < 0.9


def test_without_repeats_there_is_no_interval_and_the_estimate_says_why():
    found = estimate.redrawn([estimate.Uncertain(1.0, None, None)], lambda values: float(values[0]), rng.stream(0, "x"))
    assert (found.value, found.low, found.high, found.sign) == (1.0, None, None, 0)
    assert found.basis == "no interval: a mean over one seed, and no configuration was repeated"
