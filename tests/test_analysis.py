"""The estimators against planted truth, and every caveat against a study that was spoilt in that one way."""

import dataclasses
import json
import math

import numpy as np
import pytest
from scipy import stats

import synthetic
from synthetic import BASE_NLL, Design, Valley
from welltuned.analysis import cells, difference, interval, optimum, summary, table, throughput, wording
from welltuned.analysis.caveats import caveats
from welltuned.records import Hindsight, Role, Status

CELL = ("method", "batch_size")


def changed(results, which, **fields):
    """Return the results with some fields replaced where `which(result)`."""
    return tuple(dataclasses.replace(one, **fields) if which(one) else one for one in results)


def kinds(results, declaration=synthetic.DECLARATION):
    return {caveat.kind for caveat in caveats(results, declaration)}


def text_of(kind, results, declaration=synthetic.DECLARATION):
    return " ".join(caveat.text for caveat in caveats(results, declaration) if caveat.kind == kind)


# The optimum ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("best", [-3.0, -2.9, -2.51, -2.13])
@pytest.mark.parametrize("curvature", [0.05, 0.5, 4.0])
def test_the_vertex_of_a_planted_parabola_is_found_exactly(best, curvature):
    losses = [0.4 + curvature * (math.log10(rate) - best) ** 2 for rate in synthetic.RATES]
    found = optimum.estimate(synthetic.RATES, losses)
    assert math.isclose(math.log10(found.learning_rate), best, abs_tol=1e-9)
    assert found.edge == "" and found.reason == ""
    assert found.best_rate == min(synthetic.RATES, key=lambda rate: abs(math.log10(rate) - best))


def test_the_vertex_equals_numpys_fit_on_uneven_rates():
    rates, losses = [1e-4, 3e-4, 5e-4, 4e-3, 1e-2], [1.0, 0.7, 0.5, 0.55, 0.9]
    a, b, _ = np.polyfit(np.log(rates[1:4]), losses[1:4], 2)
    assert optimum.estimate(rates, losses).learning_rate == pytest.approx(math.exp(-b / (2 * a)))


def test_the_band_holds_the_vertex_and_is_exact_for_a_parabola_within_its_three_points():
    losses = [1.0 + 0.5 * (math.log10(rate) + 2.6) ** 2 for rate in synthetic.RATES]
    found = optimum.estimate(synthetic.RATES, losses)
    half = math.sqrt(optimum.NEAR_OPTIMAL * min(losses) / 0.5)
    assert math.log10(found.band_low) == pytest.approx(-2.6 - half)
    assert math.log10(found.band_high) == pytest.approx(-2.6 + half)
    assert math.log10(found.centre) == pytest.approx(-2.6)
    assert not found.band_low_open and not found.band_high_open


def test_a_wide_band_goes_on_linearly_beyond_the_three_points():
    found = optimum.estimate([1.0, 2.0, 4.0, 8.0, 16.0], [2.0, 1.001, 1.0, 1.001, 2.0])
    level = found.best_value + found.tolerance
    assert found.band_high == pytest.approx(8.0 * 2.0 ** ((level - 1.001) / (2.0 - 1.001)))
    assert found.centre == pytest.approx(4.0)


@pytest.mark.parametrize("seed", range(20))
def test_the_vertex_lies_in_the_band_between_its_neighbours_whatever_the_losses(seed):
    losses = np.random.default_rng(seed).uniform(0.3, 1.5, 7)
    rates = np.geomspace(1e-4, 1e-1, 7)
    found = optimum.estimate(list(rates), list(losses))
    best = int(np.argmin(losses))
    if 0 < best < 6:
        assert rates[best - 1] < found.learning_rate < rates[best + 1]
        assert found.band_low <= found.learning_rate <= found.band_high
    else:
        assert found.learning_rate is None and found.reason


@pytest.mark.parametrize(
    ("losses", "edge", "open_low", "open_high"),
    [
        ([1.0, 2.0, 3.0], "low", True, False),
        ([3.0, 2.0, 1.0], "high", False, True),
        ([1.0, 1.0, 2.0], "low", True, False),
        ([1.0, 1.0, 1.0], "both", True, True),
    ],
)
def test_an_optimum_on_the_edge_is_no_optimum(losses, edge, open_low, open_high):
    found = optimum.estimate([1e-3, 1e-2, 1e-1], losses)
    assert found.learning_rate is None and found.edge == edge
    assert (found.band_low_open, found.band_high_open) == (open_low, open_high)
    assert "tried" in found.reason


def test_a_single_learning_rate_is_not_a_valley():
    found = optimum.estimate([1e-3], [1.0])
    assert (found.learning_rate, found.edge, found.best_rate) == (None, "both", 1e-3)


def test_ties_lie_in_the_middle():
    rates = [1e-4, 1e-3, 1e-2, 1e-1, 1.0]
    assert optimum.estimate(rates, [3.0, 1.0, 1.0, 3.0, 4.0]).learning_rate == pytest.approx(10**-2.5)
    plateau = optimum.estimate(rates, [3.0, 1.0, 1.0, 1.0, 3.0])
    assert plateau.learning_rate == pytest.approx(1e-2) and plateau.best_rate == 1e-2


def test_the_right_edge_is_where_half_the_gain_is_lost():
    found = optimum.estimate([1e-4, 1e-3, 1e-2], [1.0, 0.5, 1.5], base_loss=1.5)
    assert found.right_edge == pytest.approx(10**-2.5)  # half way up, at loss 1.0
    assert optimum.estimate([1e-4, 1e-3, 1e-2], [1.0, 0.5, 0.6], base_loss=1.5).right_edge is None
    assert optimum.estimate([1e-4, 1e-3, 1e-2], [1.0, 0.5, 0.6]).right_edge is None


@pytest.mark.parametrize(("rates", "losses"), [([], []), ([1.0, 1.0], [1.0, 2.0]), ([1.0, 2.0], [1.0])])
def test_estimate_refuses_what_is_not_a_sweep(rates, losses):
    with pytest.raises(ValueError, match="expected as many, ascending, at least one"):
        optimum.estimate(rates, losses)


# Cells and intervals --------------------------------------------------------------------------------------------------


def test_a_diverged_seed_counts_with_the_base_and_stays_in_the_mean():
    results, _ = synthetic.study(Design(seeds=2))
    first = next(one for one in results if one.role is Role.SELECT)
    spoilt = changed(results, lambda one: one is first, status=Status.DIVERGED, validation_nll=None)
    cell = cells.group(spoilt, CELL)[0]
    other = next(one for one in spoilt if one.config == first.config.replace(init_seed=1, order_seed=1, subset_seed=1))
    assert cell.rates[0].mean_nll == pytest.approx((BASE_NLL + other.validation_nll) / 2)
    assert (cell.rates[0].num_diverged, cell.rates[0].num_unscored) == (1, 0)


def test_lost_and_stopped_trials_are_counted_and_not_scored():
    results, _ = synthetic.study()
    first = next(one for one in results if one.role is Role.SELECT)
    for status in (Status.LOST, Status.STOPPED):
        cell = cells.group(changed(results, lambda one: one is first, status=status), CELL)[0]
        assert (cell.rates[0].mean_nll, cell.rates[0].num_unscored) == (None, 1)
        assert cell.rates[0] not in cell.scored


def test_cells_are_ordered_by_number_and_not_by_text():
    results, _ = synthetic.study(Design(batches=(4, 16, 128)))
    assert [cell.config.batch_size for cell in cells.group(results, CELL)][:3] == [4, 16, 128]


def test_the_selected_rate_is_the_confirmed_one_else_the_lowest_mean():
    results, _ = synthetic.study()
    select = [one for one in results if one.role is Role.SELECT]
    for whole, part in zip(cells.group(results, CELL), cells.group(select, CELL), strict=True):
        assert whole.selected_rate == part.selected_rate == whole.confirm[0].config.learning_rate


def test_an_interval_is_scipys_t_interval():
    values = [0.71, 0.78, 0.74, 0.69]
    found = interval.over_seeds(values)
    low, high = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))
    assert found.sd == pytest.approx(np.std(values, ddof=1))


def test_an_interval_says_what_it_cannot():
    assert interval.over_seeds([0.5]) == interval.Interval(0.5, None, None, None, 1, "one seed has no interval")
    assert interval.over_seeds([0.99, 0.7], 0.0, 1.0).high == 1.0
    with pytest.raises(ValueError, match="the mean of no values"):
        interval.over_seeds([])


# Summary --------------------------------------------------------------------------------------------------------------


def test_winners_are_the_planted_ones_and_optima_the_planted_optima():
    design = Design()
    results, declaration = synthetic.study(design)
    rows = summary.summarise(results, declaration.cell)
    assert [(row.method, row.batch_size) for row in summary.winners(rows)] == [
        ("lora", 4),
        ("milora", 4),
        ("pissa", 4),
    ]
    for row in rows:
        valley = next(valley for valley in design.valleys if valley.method == row.method)
        planted = synthetic.truth(valley, row.batch_size)
        assert row.optimum is not None and math.log10(row.optimum.learning_rate) == pytest.approx(planted, abs=1e-9)
        assert row.num_trials == len(design.rates) + 3 and row.reason == ""


def test_accuracy_and_item_error_equal_the_obvious_ones():
    results, declaration = synthetic.study()
    row = summary.summarise(results, declaration.cell)[0]
    answers = np.array([one.test_correct for one in results if one.role is Role.CONFIRM][:3], dtype=float)
    assert row.test_accuracy.mean == pytest.approx(answers.mean())
    assert row.item_error == pytest.approx(stats.sem(answers.mean(axis=0)))
    assert row.num_items == 200


def test_a_diverged_rerun_scores_zero_where_the_study_grades_and_nothing_where_it_does_not():
    results, declaration = synthetic.study()
    first = next(one for one in results if one.role is Role.CONFIRM)
    fields = {"status": Status.DIVERGED, "test_correct": None, "validation_nll": BASE_NLL}
    row = summary.summarise(changed(results, lambda one: one is first, **fields), declaration.cell)[0]
    assert row.fresh[0].accuracy == 0.0 and row.test_accuracy.num_seeds == 3
    results, _ = synthetic.study(Design(graded=False))
    first = next(one for one in results if one.role is Role.CONFIRM)
    row = summary.summarise(changed(results, lambda one: one is first, **fields), declaration.cell)[0]
    assert row.test_accuracy is None and row.reason == "the study grades no test answers"
    assert row.fresh_nll.num_seeds == 3


def test_methods_are_compared_within_a_problem_only():
    small, _ = synthetic.study()
    large, _ = synthetic.study(Design(changes={"base": "abacus-large"}))
    rows = summary.summarise(small + large, ("base", "method", "batch_size"))
    assert [(dict(row.problem)["base"], row.method) for row in summary.winners(rows)] == [
        (base, method) for base in ("abacus-large", "abacus-small") for method in ("lora", "milora", "pissa")
    ]
    assert "problems" in kinds(
        small + large, dataclasses.replace(synthetic.DECLARATION, cell=("base", "method", "batch_size"))
    )


def test_every_missing_number_has_its_reason():
    results, declaration = synthetic.study()
    select = [one for one in results if one.role is Role.SELECT]
    assert {row.reason for row in summary.summarise(select, declaration.cell)} == {"no fresh-seed rerun has ended"}
    lost = changed(select, lambda one: True, status=Status.LOST)
    rows = summary.summarise(lost, declaration.cell)
    assert {row.reason for row in rows} == {"no selection trial has a score yet"}
    assert summary.winners(rows) == () and rows[0].optimum is None
    partly = changed(results, lambda one: one.config.method == "lora", test_correct=None)
    assert summary.summarise(partly, declaration.cell)[0].reason == "the test split has not been graded yet"
    assert summary.summarise([], declaration.cell) == ()


def test_the_paired_difference_pairs_by_seed():
    results, declaration = synthetic.study(Design(noise=0.01))
    one, other = summary.winners(summary.summarise(results, declaration.cell))[:2]
    shuffled = dataclasses.replace(other, fresh=other.fresh[::-1])
    gaps = [ours.nll - theirs.nll for ours, theirs in zip(one.fresh, other.fresh, strict=True)]
    assert difference.paired(one, shuffled, "nll") == interval.over_seeds(gaps)
    strangers = tuple(dataclasses.replace(run, seeds=(7, 7, 7 + n)) for n, run in enumerate(other.fresh))
    assert difference.paired(one, dataclasses.replace(other, fresh=strangers), "accuracy") is None


def test_a_paired_difference_of_nothing_differs_from_0_in_one_of_twenty():
    """A/A: two cells of one truth share the seeds' effect and differ by noise only."""
    results, declaration = synthetic.study()
    row = summary.summarise(results, declaration.cell)[0]
    random = np.random.default_rng(0)
    told = 0
    for _ in range(2000):
        shared = random.normal(0.5, 0.05, 3)
        one, other = (
            dataclasses.replace(
                row, fresh=tuple(dataclasses.replace(run, nll=nll) for run, nll in zip(row.fresh, values, strict=True))
            )
            for values in shared + random.normal(0.0, 0.01, (2, 3))
        )
        gap = difference.paired(one, other, "nll")
        told += not gap.low <= 0.0 <= gap.high
    assert abs(told / 2000 - 0.05) < 3 * math.sqrt(0.05 * 0.95 / 2000)


def test_throughput_adds_up():
    results, declaration = synthetic.study()
    rows = throughput.speeds(results, declaration.cell)
    assert sum(row.seconds for row in rows) == pytest.approx(sum(one.seconds for one in results))
    assert rows[0].tokens_per_second == pytest.approx(21_000)
    untimed = throughput.speeds(changed(results, lambda one: True, seconds=0.0), declaration.cell)
    assert {row.tokens_per_second for row in untimed} == {None}


def test_the_table_of_trials_is_flat_and_free_of_nan():
    results, _ = synthetic.study()
    rows = table.trial_rows(results)
    assert len(rows) == len(results) and json.dumps(rows, allow_nan=False)
    assert rows[0]["method"] == "lora" and rows[0]["target_modules"] == "all-linear"
    assert rows[0]["test_accuracy"] is None


# Caveats --------------------------------------------------------------------------------------------------------------


def spotless():
    """Return a study about which there is nothing to say."""
    valleys = (Valley("lora", -2.6, batch_penalty=0.0, floor=0.4), Valley("pissa", -2.9, batch_penalty=0.0))
    results, declaration = synthetic.study(Design(valleys=valleys, seeds=2, batches=(8, 16, 32)))
    # the middle batch is the best
    better = tuple(
        dataclasses.replace(one, validation_nll=one.validation_nll - 0.05) if one.config.batch_size == 16 else one
        for one in results
    )
    return better, declaration


def test_a_spotless_study_has_no_caveat():
    assert caveats(*spotless()) == ()


def test_edges_come_first_and_name_their_cells():
    results, declaration = synthetic.study(Design(rates=synthetic.RATES[:4]))
    found = caveats(results, declaration)
    assert found[0].kind == "edge" and found[0].serious
    assert "highest tried" in found[0].text and "lora, batch 64" in found[0].text
    results, declaration = synthetic.study(Design(rates=synthetic.RATES[-3:]))
    assert "lowest tried" in text_of("edge", results)
    results, declaration = synthetic.study(Design(rates=synthetic.RATES[5:6]))
    assert "the learning rate is not tuned there" in text_of("edge", results) and "and 3 more" in text_of(
        "edge", results
    )


def test_divergence_is_counted_by_method():
    results, _ = spotless()
    worst = max(one.config.learning_rate for one in results)
    spoilt = changed(
        results, lambda one: one.config.learning_rate == worst and one.config.method == "lora", status=Status.DIVERGED
    )
    assert text_of("diverged", spoilt) == (
        "6 trials diverged (lora 6 of 75). Each counts with the base's loss and accuracy 0."
    )
    first = next(one for one in results if one.role is Role.CONFIRM)
    rerun = changed(results, lambda one: one is first, status=Status.DIVERGED)
    assert "1 of them was a rerun of a selected configuration" in text_of("diverged", rerun)


def test_single_seeds_are_told():
    results, _ = synthetic.study(Design(fresh_seeds=1))
    text = text_of("single seed", results)
    assert "A single fresh seed, hence no interval" in text and "Selection saw one seed" in text
    results, _ = synthetic.study(Design(fresh_seeds=0))
    assert "No fresh-seed rerun" in text_of("single seed", results)


def test_unequal_budgets_are_told():
    results, _ = spotless()
    dropped = next(one for one in results if one.role is Role.SELECT and one.config.method == "pissa")
    found = [one for one in caveats([one for one in results if one is not dropped], synthetic.DECLARATION)]
    assert [(one.kind, one.serious) for one in found] == [("budget", True)]
    assert "lora 66 trials" in found[0].text and "pissa 65 trials" in found[0].text
    fewer = changed(results, lambda one: one.config.method == "pissa", num_tokens=1000)
    assert "pissa 66 trials and 66,000 tokens; a diverged trial ends early." in text_of("budget", fewer)


def test_a_best_batch_on_the_edge_is_told():
    results, _ = synthetic.study()
    assert text_of("batch edge", results) == (
        "The best batch size is on the edge of those tried for lora (the smallest, 4), milora (the smallest, 4), "
        "pissa (the smallest, 4): a better one may lie beyond."
    )


def test_the_delta_form_is_told_where_it_matters():
    """In bfloat16, of methods with anchors."""
    results, declaration = synthetic.study()
    rounded = [dataclasses.replace(one, config=one.config.replace(dtype="bfloat16")) for one in results]
    found = {caveat.kind: caveat.text for caveat in caveats(rounded, declaration)}
    assert found["delta form"].startswith("milora and pissa train as differences to an untouched base.")
    assert "delta form" not in {caveat.kind for caveat in caveats(results, declaration)}


def test_who_rounds_small_changes_away_is_told():
    """In bfloat16; it can change a ranking where all weights are trained beside adapters."""
    results, declaration = synthetic.study()
    assert "rounding" not in {caveat.kind for caveat in caveats(results, declaration)}
    rounded = [dataclasses.replace(one, config=one.config.replace(dtype="bfloat16")) for one in results]
    (told,) = (caveat for caveat in caveats(rounded, declaration) if caveat.kind == "rounding")
    assert not told.serious
    assert "PEFT adds it to an output that is rounded already, and a merged model rounds it" in told.text
    whole = [dataclasses.replace(one, config=one.config.replace(method="full_all")) for one in rounded[:4]]
    (told,) = (caveat for caveat in caveats([*rounded[4:], *whole], declaration) if caveat.kind == "rounding")
    assert told.serious
    lost = "What full_all changes is rounded with the weights, small changes are lost: compare in float32."
    assert told.text.endswith(lost)


def test_few_steps_are_told():
    results, _ = spotless()
    few = changed(results, lambda one: one.config.batch_size == 32, num_steps=8)
    assert "Fewer than 32 optimizer steps in “lora, batch 32 (8 steps)”" in text_of("few steps", few)


@pytest.mark.parametrize(
    ("kind", "survey", "text"),
    [
        ("truncated", {"num_truncated": 3}, "3 training rows were cut at the maximum length."),
        ("dropped", {"num_dropped": 1}, "1 training row was dropped"),
        ("duplicates", {"num_duplicates": 2}, "2 training rows have a prompt that also stands in validation or test."),
    ],
)
def test_data_caveats(kind, survey, text):
    results, declaration = spotless()
    spoilt = dataclasses.replace(declaration, surveys=(dataclasses.replace(synthetic.SURVEY, **survey),))
    assert kinds(results, spoilt) == {kind} and text in text_of(kind, results, spoilt)


HINDSIGHT = Hindsight("", "lora", 2, "lora, learning rate 1e-2", 0.5, "lora, learning rate 5e-3", 0.6, 0.4)


@pytest.mark.parametrize(
    ("kind", "fields", "text"),
    [
        ("test reads", {"num_test_reads": 4}, "The test split was read for 4 reruns"),
        ("test reads", {"num_test_reads": 4, "hindsight": (HINDSIGHT,)}, "an oracle pass read it for the adapters"),
        ("lost", {"num_lost": 2}, "2 jobs lost to the machine and run again"),
        ("environments", {"environments": ('{"torch": "2.13", "os": "a"}', '{"torch": "2.14", "os": "a"}')}, "torch"),
        ("unfinished", {"finished": False, "num_planned": 200}, "150 of 200 trials have ended"),
        ("unfinished", {"finished": False}, "150 trials ended so far"),
    ],
)
def test_declaration_caveats(kind, fields, text):
    results, declaration = spotless()
    spoilt = dataclasses.replace(declaration, **fields)
    assert kinds(results, spoilt) == {kind} and text in text_of(kind, results, spoilt)
    assert "os" not in text_of("environments", results, spoilt)


@pytest.mark.parametrize(
    ("status", "text"), [(Status.LOST, "1 trial lost to the machine"), (Status.STOPPED, "1 trial stopped early")]
)
def test_unscored_trials_are_told(status, text):
    results, _ = spotless()
    first = next(one for one in results if one.role is Role.SELECT)
    assert text in text_of("unscored", changed(results, lambda one: one is first, status=status))


def test_labels_read_as_words():
    key = (("method", "lora"), ("batch_size", 16), ("target_modules", ("q", "v")), ("learning_rate", 1e-3))
    assert wording.label(key) == "lora, batch 16, target modules q+v, learning rate 1e-3"
    assert wording.label(()) == "all"
    assert [wording.seconds_text(None), wording.count_text(None), wording.percent_text(None)] == [wording.DASH] * 3
