"""The interval, the verdict and their kin against references: scipy, statsmodels, and sums written out."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from welltuned.analysis import bootstrap, crossed, inflation, mcnemar, multiplicity, power, verdict
from welltuned.analysis.paired import correct_rows, differences
from welltuned.analysis.verdict import Kind, Margin
from welltuned.rng import stream

POINT = Margin(0.01, True, "declared")


def planted(num_seeds, num_items, seed_sd, item_sd, residual_sd, mean=0.0, name="planted"):
    """Return differences seeds x items with these standard deviations."""
    generator = stream(0, name, num_seeds, num_items)
    seeds, items = generator.standard_normal((num_seeds, 1)), generator.standard_normal((1, num_items))
    rest = generator.standard_normal((num_seeds, num_items))
    return mean + seed_sd * seeds + item_sd * items + residual_sd * rest


def at(low95, high95, low90, high90):
    """Return an interval with these ends."""
    parts = crossed.Parts(np.float64(1e-6), np.float64(1e-6), np.float64(0), 4, np.float64(99))
    ends = (low95, high95, low90, high90)
    return crossed.CrossedInterval((low95 + high95) / 2, *ends, 1e-3, 9.0, 5, 100, 1, crossed.Scope.BOTH, parts)


# The interval ---------------------------------------------------------------------------------------------------------


def test_the_mean_squares_are_those_of_sums_written_out():
    values = planted(4, 7, 0.3, 0.5, 1.0)
    num_seeds, num_items = values.shape
    mean = sum(values.flat) / 28
    rows = [sum(row) / num_items for row in values]
    columns = [sum(column) / num_seeds for column in values.T]
    seeds = num_items * sum((row - mean) ** 2 for row in rows) / 3
    items = num_seeds * sum((column - mean) ** 2 for column in columns) / 6
    rest = [
        (values[s, i] - rows[s] - columns[i] + mean) ** 2
        for s, i in itertools.product(range(num_seeds), range(num_items))
    ]
    parts = crossed.parts_of([values])
    assert [float(part) * 28 for part in (parts.seeds, parts.items, parts.residual)] == pytest.approx(
        [seeds, items, sum(rest) / 18]
    )


def test_the_mean_squares_equal_statsmodels_analysis_of_variance():
    import pandas as pd
    from statsmodels.formula.api import ols
    from statsmodels.stats.anova import anova_lm

    values = planted(4, 6, 0.3, 0.5, 1.0, name="anova")
    rows = [(str(s), str(i), value) for (s, i), value in np.ndenumerate(values)]
    frame = pd.DataFrame(rows, columns=["seed", "item", "value"])
    found = anova_lm(ols("value ~ C(seed) + C(item)", frame).fit())
    parts = crossed.parts_of([values])
    assert float(parts.seeds) * values.size == pytest.approx(found.loc["C(seed)", "mean_sq"])
    assert float(parts.items) * values.size == pytest.approx(found.loc["C(item)", "mean_sq"])
    assert float(parts.residual) * values.size == pytest.approx(found.loc["Residual", "mean_sq"])


def test_the_components_are_those_of_statsmodels_mixed_model():
    """Crossed effects by restricted likelihood equal the method of moments where no component is at 0."""
    import pandas as pd
    from statsmodels.regression.mixed_linear_model import MixedLM

    values = planted(6, 12, 1.0, 1.0, 1.0, name="mixed")
    rows = [(str(s), str(i), value) for (s, i), value in np.ndenumerate(values)]
    frame = pd.DataFrame(rows, columns=["seed", "item", "value"])
    components = {"seed": "0 + C(seed)", "item": "0 + C(item)"}
    model = MixedLM.from_formula("value ~ 1", frame, groups=np.ones(len(frame)), vc_formula=components)
    fit = model.fit(reml=True)
    found = crossed.interval(values)
    by_name = dict(zip(model.exog_vc.names, fit.vcomp, strict=True))
    assert found.seed_part * 6 == pytest.approx(by_name["seed"], rel=0.01)
    assert found.item_part * 12 == pytest.approx(by_name["item"], rel=0.01)
    assert found.residual_part * 72 == pytest.approx(fit.scale, rel=0.01)
    assert math.sqrt(found.seed_part + found.item_part + found.residual_part) == pytest.approx(
        float(np.asarray(fit.bse_fe)[0]), rel=0.01
    )


def test_a_metric_without_items_has_scipys_t_interval():
    values = planted(5, 1, 1.0, 0.0, 0.0, mean=0.4)
    found = crossed.interval(values)
    for confidence, low, high in ((0.95, found.low95, found.high95), (0.90, found.low90, found.high90)):
        expected = stats.t.interval(confidence, 4, loc=values.mean(), scale=stats.sem(values[:, 0]))
        assert (low, high) == pytest.approx(expected)
    assert found.degrees_of_freedom == pytest.approx(4)
    assert found.p_value(0.1) == pytest.approx(stats.ttest_1samp(values[:, 0], 0.1).pvalue)
    assert found.scope is crossed.Scope.SEEDS


def test_one_seed_has_scipys_t_interval_over_items_and_says_so():
    values = planted(1, 40, 0.0, 1.0, 0.0)
    found = crossed.interval(values)
    expected = stats.t.interval(0.95, 39, loc=values.mean(), scale=stats.sem(values[0]))
    assert (found.low95, found.high95) == pytest.approx(expected)
    assert found.scope is crossed.Scope.ITEMS and "these trained models only" in found.scope


def test_where_seeds_are_everything_it_is_students_t_over_seeds():
    """Items that all differ alike bring nothing."""
    seeds = planted(5, 1, 1.0, 0.0, 0.0)
    found = crossed.interval(np.repeat(seeds, 300, axis=1))
    expected = stats.t.interval(0.95, 4, loc=seeds.mean(), scale=stats.sem(seeds[:, 0]))
    assert (found.low95, found.high95) == pytest.approx(expected, rel=1e-6)


def test_equal_seeds_are_as_wide_as_items_make_them():
    """The seeds-only t of two equal seeds has width 0."""
    row = planted(1, 200, 0.0, 1.0, 0.0)
    twice, once = crossed.interval(np.repeat(row, 2, axis=0)), crossed.interval(row)
    assert (twice.low95, twice.high95) == pytest.approx((once.low95, once.high95))
    assert twice.high95 - twice.low95 > 0.2


def test_seeds_that_cancel_out_leave_the_residual():
    """Two seeds that differ from item to item in opposite ways: both means of squares of seeds and items are 0."""
    row = np.array([1.0, -1.0] * 50)
    found = crossed.interval(np.array([row, -row]))
    assert found.high95 == pytest.approx(stats.t.ppf(0.975, 99) * math.sqrt(2 * 100 / 99 / 200))


@pytest.mark.parametrize("seed", range(30))
def test_it_is_never_narrower_than_the_items_alone(seed):
    values = stream(seed, "narrow").choice([-1.0, 0.0, 1.0], size=(3, 60), p=[0.1, 0.7, 0.2])
    found = crossed.interval(values)
    items = stats.t.interval(0.95, 59, loc=0, scale=stats.sem(values.mean(0)))[1]
    assert found.high95 - found.mean >= items - 1e-12


def test_tasks_weigh_alike_and_seeds_cross_them():
    """By hand: the seeds' averages over the tasks, and the items' variances of the tasks with weight 1/4."""
    one, other = planted(4, 30, 0.5, 1.0, 1.0), planted(4, 200, 0.5, 1.0, 1.0, mean=3.0)
    found = crossed.interval([one, other])
    assert found.mean == pytest.approx((one.mean() + other.mean()) / 2)
    averages = (one.mean(1) + other.mean(1)) / 2
    assert float(found.parts.seeds) == pytest.approx(averages.var(ddof=1) / 4)
    assert float(found.parts.items) == pytest.approx(
        (one.mean(0).var(ddof=1) / 30 + other.mean(0).var(ddof=1) / 200) / 4
    )
    assert (found.num_seeds, found.num_items, found.num_tasks) == (4, 230, 2)


def test_seeds_of_each_tasks_own_are_independent():
    one, other = planted(3, 30, 0.5, 1.0, 1.0), planted(5, 40, 0.5, 1.0, 1.0)
    parts = crossed.interval([one, other], seeds_cross_tasks=False).parts
    assert float(parts.seeds) == pytest.approx((one.mean(1).var(ddof=1) / 3 + other.mean(1).var(ddof=1) / 5) / 4)
    assert parts.seeds_df == 6


def test_the_p_value_is_one_minus_the_confidence_that_ends_there():
    found = crossed.interval(planted(4, 90, 0.1, 0.5, 1.0))
    assert found.p_value(found.high95) == pytest.approx(0.05, rel=1e-6)
    assert found.p_value(found.low90) == pytest.approx(0.10, rel=1e-6)
    assert found.p_value(found.mean) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([[0.3]], "one number has no interval"),
        ([[0.1], [0.1], [0.1]], "all seeds differ alike"),
        ([[0.0, 0.0], [0.0, 0.0]], "all seeds and items differ alike"),
        ([[0.1, 0.1, 0.1]], "all items differ alike"),
    ],
)
def test_no_spread_is_no_interval_and_says_why(values, reason):
    found = crossed.interval(values)
    assert found.low95 is None and found.p_value() is None and reason in found.reason
    assert verdict.decide(found, POINT).words.startswith(f"undecided: {reason}")
    decides = power.more_needed(found, POINT).reason
    assert decides == "more fresh seeds or test items, among which the difference varies"


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([1.0, 2.0], r"got shape \(2,\), expected seeds x items"),
        (np.zeros((3, 0)), "expected seeds x items, at least 1 x 1"),
        ([[math.nan, 1.0]], "got NaN or infinity, expected numbers; a diverged run is a row of 0s"),
        ([np.ones((2, 3)), np.ones((3, 3))], r"got \[2, 3\] seeds, expected the same seeds in every task"),
        ([np.ones((2, 1)), np.ones((2, 3))], "got tasks with items and tasks without"),
    ],
)
def test_what_is_not_paired_values_is_refused(values, text):
    with pytest.raises(ValueError, match=text):
        crossed.interval(values)


def test_a_diverged_run_is_all_wrong_and_stays():
    ours = correct_rows([(True, True, False, True), None], 4)
    theirs = correct_rows([(True, False, False, True), (True, True, False, False)], 4)
    assert differences(ours, theirs).tolist() == [[0, 1, 0, 0], [-1, -1, 0, 0]]
    assert crossed.interval(differences(ours, theirs)).mean == pytest.approx((1 - 2) / 8)


def test_rows_of_other_items_are_refused():
    with pytest.raises(ValueError, match="got a row of 2 items, expected 3, the same items for every seed"):
        correct_rows([(True, False)], 3)
    with pytest.raises(ValueError, match=r"got shapes \(2, 3\) and \(2, 4\), expected the same seeds and items"):
        differences(np.ones((2, 3)), np.ones((2, 4)))


# The bootstrap --------------------------------------------------------------------------------------------------------


def test_the_bootstrap_is_that_of_resampling_rows_and_columns():
    """The weights give the moments that drawing rows and columns one by one gives."""
    values, generator = planted(4, 9, 1.0, 1.0, 1.0), stream(1, "by hand")
    means = bootstrap.resampled_means([values], stream(0, "weights"), 20_000)
    by_hand = [values[np.ix_(generator.integers(0, 4, 4), generator.integers(0, 9, 9))].mean() for _ in range(20_000)]
    assert means.mean() == pytest.approx(np.mean(by_hand), abs=4 * np.std(by_hand) / math.sqrt(20_000) * 1.5)
    assert means.std() == pytest.approx(np.std(by_hand), rel=0.03)


def test_the_bootstrap_is_reproduced_by_its_stream():
    values = planted(3, 20, 1.0, 1.0, 1.0)
    assert bootstrap.two_level([values], stream(5, "b")) == bootstrap.two_level([values], stream(5, "b"))
    assert bootstrap.two_level([values], stream(5, "b")) != bootstrap.two_level([values], stream(6, "b"))
    with pytest.raises(ValueError, match="expected the same seeds in every task"):
        bootstrap.two_level([values, values[:2]], stream(5, "b"))


def test_over_seeds_alone_the_bootstrap_is_scipys():
    """One column is where both ask the same. (rliable 1.2.0 cannot be imported beside pandas 3: arch 7.2.0 fails.)"""
    values = planted(30, 1, 1.0, 0.0, 0.0)
    options = {"n_resamples": 20_000, "method": "percentile", "rng": stream(1, "scipy")}
    expected = stats.bootstrap((values[:, 0],), np.mean, **options).confidence_interval
    ours = bootstrap.two_level([values], stream(0, "scipy"), 20_000)
    assert [ours.low95, ours.high95] == pytest.approx([expected.low, expected.high], abs=0.02)


def test_with_many_seeds_and_items_the_bootstrap_confirms_the_interval():
    values = planted(60, 400, 1.0, 8.0, 4.0)
    found, check = crossed.interval(values), bootstrap.two_level([values], stream(0, "check"), 4000)
    assert check.high95 - check.low95 == pytest.approx(found.high95 - found.low95, rel=0.06)


# The verdict ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ends", "kind", "differs", "words"),
    [
        ((0.011, 0.03, 0.012, 0.029), Kind.BETTER, True, "better by more than 1 point"),
        ((-0.03, -0.011, -0.029, -0.012), Kind.WORSE, True, "worse by more than 1 point"),
        ((-0.011, 0.008, -0.009, 0.006), Kind.EQUIVALENT, False, "equivalent within 1 point"),
        ((0.001, 0.009, 0.002, 0.008), Kind.EQUIVALENT, True, "better, but equivalent within 1 point"),
        ((0.001, 0.03, 0.003, 0.028), Kind.UNDECIDED, True, "better, but undecided at 1 point"),
        ((-0.02, -0.001, -0.019, -0.002), Kind.UNDECIDED, True, "worse, but undecided at 1 point"),
        ((-0.02, 0.02, -0.015, 0.015), Kind.UNDECIDED, False, "undecided at 1 point"),
        ((0.01, 0.03, 0.012, 0.028), Kind.UNDECIDED, True, "better, but undecided at 1 point"),  # not beyond, at
    ],
)
def test_a_verdict_is_what_the_intervals_ends_say(ends, kind, differs, words):
    found = verdict.decide(at(*ends), POINT)
    assert (found.kind, found.differs_from_zero, found.words) == (kind, differs, words)


def test_a_lower_loss_is_better():
    loss = verdict.loss_margin(0.5)
    assert loss.value == pytest.approx(0.005) and loss.text == "0.0050 nats"
    assert verdict.decide(at(-0.03, -0.006, -0.02, -0.01), loss).kind is Kind.BETTER
    assert verdict.decide(at(0.006, 0.03, 0.01, 0.02), loss).words == "worse by more than 0.0050 nats"


def test_one_seed_never_gives_a_verdict():
    values = 0.5 + planted(1, 400, 0.0, 0.1, 0.0)
    found = verdict.decide(crossed.interval(values), POINT)
    assert found.kind is Kind.UNDECIDED and found.differs_from_zero
    assert found.words == "undecided at 1 point: one seed says nothing of other seeds"


@pytest.mark.parametrize("mean", [-0.012, -0.004, 0.0, 0.006, 0.013])
@pytest.mark.parametrize("sd", [0.002, 0.008, 0.02])
def test_equivalence_is_statsmodels_two_one_sided_tests(mean, sd):
    from statsmodels.stats.weightstats import DescrStatsW

    values = planted(8, 1, sd, 0.0, 0.0)
    values += mean - values.mean()
    expected = DescrStatsW(values[:, 0]).ttost_mean(-0.01, 0.01)[0] <= 0.05
    assert (verdict.decide(crossed.interval(values), POINT).kind is Kind.EQUIVALENT) == expected


def test_the_margin_is_one_point_only_where_items_allow():
    assert verdict.items_for_equivalence(0.01) == 17_128 and verdict.items_for_equivalence(0.02) == 4_282
    assert verdict.accuracy_margin(17_128).value == 0.01 and verdict.accuracy_margin(17_127).value == 0.02
    assert verdict.accuracy_margin(1319).text == "2 points"
    assert "1,319 test items are fewer than the 17,128 it takes" in verdict.accuracy_margin(1319).reason


@pytest.mark.parametrize("baseline", [0.0, -1.0, math.nan])
def test_a_margin_of_no_loss_is_refused(baseline):
    with pytest.raises(ValueError, match="expected a positive loss"):
        verdict.loss_margin(baseline)
    with pytest.raises(ValueError, match="expected a positive difference"):
        verdict.decide(at(0, 1, 0, 1), Margin(baseline, True, ""))


# Many comparisons -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(10))
def test_holm_is_the_step_down_written_out(seed):
    p_values = [*stream(seed, "holm").random(6).tolist(), 0.001, 0.009]
    largest, expected = 0.0, {}
    for rank, index in enumerate(sorted(range(8), key=lambda each: p_values[each])):
        largest = max(largest, min(1.0, (8 - rank) * p_values[index]))
        expected[index] = largest
    found = multiplicity.holm(p_values)
    assert [each.adjusted for each in found] == pytest.approx([expected[index] for index in range(8)])
    assert [each.rejected for each in found] == [expected[index] <= 0.05 for index in range(8)]


def test_a_comparison_without_interval_stays_in_the_family():
    assert [each.adjusted for each in multiplicity.holm([0.02, None, None])] == [pytest.approx(0.06), None, None]
    assert multiplicity.holm([]) == ()


def test_the_best_of_two_has_the_intervals_own_p():
    ours, theirs = planted(4, 80, 0.1, 0.3, 1.0, mean=0.3), planted(4, 80, 0.1, 0.3, 1.0, name="theirs")
    found = multiplicity.best_of({"a": theirs, "b": ours}, higher_is_better=True)
    assert found.best == "b" and found.p == pytest.approx(crossed.interval(ours - theirs).p_value(), rel=1e-6)


def test_the_best_of_k_is_named_and_told_from_all_others():
    values = {name: planted(5, 400, 0.02, 0.2, 0.3, mean, name) for name, mean in zip("abc", (0, 0.5, 0), strict=True)}
    found = multiplicity.best_of(values, higher_is_better=True)
    assert found.best == "b" and found.is_best and [each.other for each in found.contrasts] == ["a", "c"]
    assert found.p == max(each.adjusted for each in found.contrasts)
    assert [each.adjusted for each in found.contrasts] == [3 * each.p for each in found.contrasts]
    assert not multiplicity.best_of(values, higher_is_better=False).is_best


def test_the_best_of_one_is_refused_and_equal_values_say_why():
    with pytest.raises(ValueError, match="the best of 1: expected at least two methods"):
        multiplicity.best_of({"a": np.ones((2, 2))}, True)
    found = multiplicity.best_of({"a": np.ones((2, 2)), "b": np.ones((2, 2))}, True)
    assert (
        found.p is None
        and found.reason == "a and b: all seeds and items differ alike, so nothing says how others would"
    )


# Power ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_seeds", [3, 5, 12])
def test_with_seed_noise_only_power_is_statsmodels_power_of_the_t_test(num_seeds):
    from statsmodels.stats.power import TTestPower

    found = power.chances(power.Spread(0.0054, 0.0, 0.0), num_seeds, 1, 0.01, 0.01)
    assert found.differs == pytest.approx(TTestPower().power(0.01 / 0.0054, num_seeds, 0.05), abs=2e-3)


def test_seeds_needed_are_those_of_statsmodels():
    from statsmodels.stats.power import TTestPower

    for points in (0.005, 0.01):
        found = power.seeds_needed(power.Spread(0.0054, 0.0, 0.0), 1, Margin(points, True, ""))
        assert found.to_see == math.ceil(TTestPower().solve_power(points / 0.0054, alpha=0.05, power=0.8))


def test_few_items_can_show_nothing_whatever_the_seeds():
    found = power.seeds_needed(power.Spread(0.005, 0.4, 0.2), 512, POINT)
    assert found.to_see is None and found.to_equate is None
    assert (
        found.reason
        == "512 test items are too few to see or to show equivalence within 1 point, with any number of fresh seeds"
    )


def test_chances_add_up_and_need_two_seeds():
    found = power.chances(power.accuracy_spread(), 5, 5000, 0.005, 0.02)
    assert found.better + found.worse + found.equivalent + found.undecided == pytest.approx(1)
    with pytest.raises(ValueError, match="got 1, expected at least 2; one seed never gives a verdict"):
        power.chances(power.accuracy_spread(), 1, 5000, 0.0, 0.02)


def test_the_spread_of_accuracies_has_the_discordance():
    spread = power.accuracy_spread(seed_sd=0.004, discordance=0.3, item_share=0.25)
    assert spread.seed == pytest.approx(math.sqrt(2) * 0.004)
    assert spread.item**2 + spread.residual**2 == pytest.approx(0.3) and spread.item**2 == pytest.approx(0.075)


@pytest.mark.parametrize(("mean", "aim"), [(0.02, Kind.BETTER), (0.0, Kind.EQUIVALENT), (-0.02, Kind.WORSE)])
def test_what_is_needed_would_decide_and_one_fewer_would_not(mean, aim):
    values = planted(5, 600, 0.008, 0.1, 0.35)
    found = crossed.interval(values - values.mean() + mean)
    assert verdict.decide(found, POINT).kind is Kind.UNDECIDED
    needed = power.more_needed(found, POINT)
    assert needed.aim is aim

    def half(seeds, items):
        spread = power.Spread(
            math.sqrt(found.seed_part * 5), math.sqrt(found.item_part * 600), math.sqrt(found.residual_part * 3000)
        )
        tail = 0.05 if aim is Kind.EQUIVALENT else 0.025
        return float(crossed.half_width(spread.parts(seeds, items), tail))

    room = abs(abs(mean) - 0.01)
    assert half(5 + needed.seeds, 600) < room < half(4 + needed.seeds, 600)
    seeds, items = needed.both
    assert items == math.ceil(600 * (5 + seeds) / 5) - 600 and half(5 + seeds, 600 + items) < room


def test_what_cannot_be_decided_says_why():
    one_seed = power.more_needed(crossed.interval(planted(1, 50, 0, 1, 0)), POINT)
    assert one_seed.seeds is None and one_seed.reason == "one fresh seed says nothing of others; run at least 3"
    near = planted(3, 50, 0.3, 0.3, 0.3)
    near = power.more_needed(crossed.interval(near - near.mean() + 0.0101), POINT)
    assert near.seeds is None and near.both is None and "too near the margin" in near.reason
    done = power.more_needed(crossed.interval(planted(5, 500, 0.001, 0.01, 0.01)), POINT)
    assert (done.seeds, done.items, done.both, done.aim) == (0, 0, (0, 0), Kind.EQUIVALENT)


def test_a_metric_without_items_asks_for_seeds_only():
    values = planted(3, 1, 0.01, 0.0, 0.0)
    needed = power.more_needed(crossed.interval(values - values.mean()), Margin(0.008, False, ""))
    assert needed.seeds > 0 and needed.items is None and needed.both == (needed.seeds, 0)


# Selection ------------------------------------------------------------------------------------------------------------


def test_choosing_among_equals_inflates_by_the_expected_maximum():
    """36 equal configurations: the best of one seed looks better by the mean of the largest of 36 normals."""
    largest = stream(0, "largest").standard_normal((20_000, 36)).max(1).mean()
    found = [
        inflation.of_choosing(stream(index, "grid").standard_normal((36, 4)), True, 1).inflation for index in range(300)
    ]
    assert np.mean(found) == pytest.approx(largest, abs=4 * np.std(found) / math.sqrt(300))


def test_leave_one_seed_out_by_hand():
    """Without the last seed the second is chosen (5.5) and falls to 1; without another one the first is."""
    values = [[4.0, 6.0, 7.0], [6.0, 5.0, 1.0]]
    found = inflation.leave_one_seed_out(values, higher_is_better=True)
    assert found.apparent == pytest.approx((5.5 + 5.5 + 6.5) / 3) and found.honest == pytest.approx((1 + 6 + 4) / 3)
    assert found.inflation == pytest.approx(found.apparent - found.honest)
    mirrored = inflation.leave_one_seed_out([[-value for value in row] for row in values], higher_is_better=False)
    assert mirrored.inflation == pytest.approx(found.inflation)


def test_the_oracle_gap_is_what_test_data_would_have_gained():
    found = inflation.oracle_gap([0.3, 0.2, 0.4], [0.71, 0.70, 0.75], validation_higher=False, test_higher=True)
    assert (found.chosen, found.oracle, found.gap) == (1, 2, pytest.approx(0.05))


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: inflation.leave_one_seed_out([[1.0, 2.0]], True), "expected finite configurations x seeds"),
        (lambda: inflation.of_choosing([[1.0, 2.0], [2.0, 1.0]], True, 2), "choosing seeds: got 2, expected 1 to 1"),
        (lambda: inflation.oracle_gap([1.0], [], True, True), "got 1 validation and 0 test values"),
        (lambda: mcnemar.describe([True], []), "got 1 and 0 items"),
    ],
)
def test_grids_that_cannot_be_judged_are_refused(call, text):
    with pytest.raises(ValueError, match=text):
        call()


def test_mcnemar_is_statsmodels_exact_test():
    from statsmodels.stats.contingency_tables import mcnemar as reference

    generator = stream(0, "mcnemar")
    ours, theirs = generator.random(200) < 0.7, generator.random(200) < 0.6
    found = mcnemar.describe(ours.tolist(), theirs.tolist())
    cells = [[np.sum(ours & theirs), np.sum(ours & ~theirs)], [np.sum(~ours & theirs), np.sum(~ours & ~theirs)]]
    assert found.p == pytest.approx(reference(cells, exact=True).pvalue)
    assert found.difference == pytest.approx(ours.mean() - theirs.mean())
    assert mcnemar.describe([True], [True]).p == 1.0
