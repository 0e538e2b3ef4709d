"""Tuning curves by enumeration of all subsets, what tuning is worth, and how wide the good band is."""

import dataclasses
import itertools
import math

import numpy as np
import pytest

import planted
from welltuned.analysis import grid, published, sensitivity, tunability, tuning_curve
from welltuned.analysis.runs import Table

SCORES = [0.3, 0.9, 0.1, 0.9, 0.5, 0.4]


@pytest.mark.parametrize("k", range(1, len(SCORES) + 1))
def test_the_expected_best_is_that_of_all_subsets(k):
    bests = [max(subset) for subset in itertools.combinations(SCORES, k)]
    chances = tuning_curve.probabilities(SCORES, k)
    assert math.fsum(chances) == pytest.approx(1)
    assert np.dot(chances, SCORES) == pytest.approx(np.mean(bests))
    for level in tuning_curve.BAND:
        expected = np.quantile(bests, level, method="inverted_cdf")
        assert tuning_curve.quantile(SCORES, chances, level) == expected


def test_the_outcome_is_that_of_what_validation_picked():
    """By enumeration; among equals on validation each is as likely."""
    tests = [0.2, 0.8, 0.1, 0.6, 0.5, 0.3]
    table = planted.table(lambda run: SCORES[planted.RATES.index(run.learning_rate)], rates=planted.RATES[:6], seeds=1)
    outcomes = dataclasses.replace(table, metric="test_accuracy")
    outcomes = outcomes.only(
        [dataclasses.replace(run, value=tests[planted.RATES.index(run.learning_rate)]) for run in table.runs]
    )
    (curve,) = tuning_curve.tuning_curves(table, outcomes)
    for k in range(1, 7):
        picked = []
        for subset in itertools.combinations(range(6), k):
            best = max(SCORES[at] for at in subset)
            picked.append(np.mean([tests[at] for at in subset if SCORES[at] == best]))
        assert curve.outcome[k - 1] == pytest.approx(np.mean(picked))
    assert curve.expected[0] == pytest.approx(np.mean(SCORES)) and curve.expected[-1] == max(SCORES)


def test_a_loss_is_tuned_downwards_and_the_band_starts_with_the_worse_end():
    table = planted.table(
        lambda run: SCORES[planted.RATES.index(run.learning_rate)], rates=planted.RATES[:6], seeds=1, higher=False
    )
    (curve,) = tuning_curve.tuning_curves(table)
    assert curve.expected[-1] == min(SCORES)
    assert all(low >= mean >= high for low, mean, high in zip(curve.low, curve.expected, curve.high, strict=True))
    assert curve.outcome is None and curve.reason == "6 of 6 configurations have no value that selection never saw"


def test_reruns_of_every_configuration_give_the_outcome():
    table = planted.refined(planted.table(lambda run: planted.valley(run, -2.5, 0.7), seeds=1), noise=0.0)
    (curve,) = tuning_curve.tuning_curves(table)
    assert curve.outcome == pytest.approx(curve.expected) and curve.reason == ""


def test_more_trials_than_configurations_are_refused():
    with pytest.raises(ValueError, match="num_trials: got 7, expected 1 to 6"):
        tuning_curve.probabilities(SCORES, 7)


def test_tunability_is_the_gain_over_the_default_and_names_the_nearest_point():
    default = published.Fixed("mine", 1e-3, 16, 8)
    table = planted.table(lambda run: planted.valley(run, -2.0, 0.7), noise=0.001)
    (found,) = tunability.tunability(table, [default])
    assert found.gain.value == pytest.approx(0.1, abs=0.005)
    assert found.gain.low < 0.1 < found.gain.high
    assert found.default.exact and not found.fresh
    (far,) = tunability.tunability(table, [published.PISSA])
    assert not far.default.exact
    assert far.default.place.learning_rate == pytest.approx(1e-4)
    assert (far.default.rate_factor, far.default.batch_factor, far.default.rank_factor) == pytest.approx((5, 8, 16))


def test_what_a_table_does_not_say_counts_as_equal_to_a_published_configuration():
    table = planted.table(lambda run: 0.5, rates=(2e-5,), batches=(None,), ranks=(None,))
    (member,) = grid.means(table)
    assert published.nearest(published.PISSA, [member.place]).exact


@pytest.mark.parametrize("curvature", [0.05, 0.4])
def test_the_band_of_a_parabola_is_as_wide_as_planted(curvature):
    """top - curvature d^2 >= (1 - share) top within sqrt(share top / curvature) decades on either side."""
    rates = tuple(10 ** (exponent / 8) for exponent in range(-32, -8))
    table = planted.table(lambda run: planted.valley(run, -2.5, 0.7, curvature), rates=rates, seeds=1)
    (found,) = sensitivity.sensitivity(table, share=0.02)
    assert found.at_share.decades == pytest.approx(
        2 * math.sqrt(0.02 * 0.7 / curvature), rel=0.06
    )  # linear past three points
    assert not found.at_share.open and found.at_one_error is None


def test_a_band_within_one_standard_error_needs_seeds_and_may_be_open():
    table = planted.table(lambda run: 0.5, noise=0.01, seeds=5)
    (found,) = sensitivity.sensitivity(table)
    assert found.at_share.open and found.at_share.decades == pytest.approx(2.5)
    best = max(grid.means(table), key=lambda member: member.value)
    assert found.at_one_error.tolerance == pytest.approx(best.sd / math.sqrt(5))


def test_a_table_without_rates_has_no_band():
    assert sensitivity.sensitivity(Table(planted.table(lambda run: 0.5, rates=(None,)).runs, "accuracy", True)) == ()
