"""The verdict is calibrated: simulated studies with known truth, at reduced size; docs/calibration.md has the full
tables.

Thresholds are the promised bounds plus Monte-Carlo error at fixed seeds. Where a bound cannot hold (width at 3 and 5
seeds that dominate) the test is of the bound that can: Student's t at the seeds' degrees of freedom.
"""

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from scripts import calibrate, recorded_equal, simulate
from scripts.simulate import Exam, Normal

from welltuned.analysis import crossed, power
from welltuned.analysis.crossed import TAIL_95
from welltuned.rng import stream

CELLS = [
    Normal(num_seeds, num_items, seed, item)
    for num_seeds in (3, 5, 10)
    for num_items in (200, 1319)
    for seed, item in calibrate.SHARES
]
DRAWS, EXAMS = 20_000, 600
SLACK = 3 * math.sqrt(0.05 * 0.95 / DRAWS)
EXAM_SLACK = 3 * math.sqrt(0.05 * 0.95 / EXAMS)


def named(cell):
    return f"{cell.num_seeds} seeds, {cell.num_items} items, {cell.seed_share}/{cell.item_share}"


@pytest.mark.parametrize("cell", CELLS, ids=named)
def test_coverage_and_errors_of_normal_differences(cell):
    """At least 95 % within three Monte-Carlo errors; at most 97 %, or 98 % where seeds have no part of their own."""
    found = simulate.record(simulate.normal_draws(cell, DRAWS))
    assert found.coverage >= 0.95 - SLACK
    assert found.coverage <= (0.97 if cell.seed_share > 0 else 0.98) + SLACK
    assert found.false_equivalent <= 0.05 + SLACK


@pytest.mark.parametrize("cell", CELLS, ids=named)
def test_width_against_known_variances(cell):
    """At most 1.15 where items dominate; else at most Student's t of the seeds, and a tenth more with residuals."""
    found = simulate.record(simulate.normal_draws(cell, DRAWS))
    if cell.item_share == 1 or (cell.num_seeds == 10 and cell.residual_share < 1):
        assert found.width <= 1.15 + 0.01
    limit = simulate.least_width(cell.num_seeds, 0.95)
    assert found.width <= limit * (1.1 if cell.residual_share > 0.25 else 1.02)


def test_no_interval_is_short_where_few_seeds_dominate():
    """Why 1.15 cannot hold there: even the 93 % t interval is wider at 3 and 5 seeds, and holds at 10."""
    assert [simulate.least_width(seeds) > 1.15 for seeds in (3, 5, 10)] == [True, True, False]
    values = stream(0, "three").standard_normal((200_000, 3))
    half = stats.t.ppf(0.965, 2) * values.std(1, ddof=1) / math.sqrt(3)
    assert np.mean(half) / (1.96 / math.sqrt(3)) == pytest.approx(simulate.least_width(3), rel=0.01)
    assert np.mean(np.abs(values.mean(1)) <= half) == pytest.approx(0.93, abs=0.003)


def test_it_covers_where_the_plain_satterthwaite_t_does_not():
    found = simulate.alternatives(simulate.normal_draws(Normal(3, 500, 0.75, 0.25), 50_000))
    assert found["Satterthwaite t"][0] < 0.93 < found["crossed (ours)"][0]
    assert found["items only"][0] < 0.9


def test_it_beats_the_seeds_only_t_where_items_matter():
    found = simulate.alternatives(simulate.normal_draws(Normal(3, 500, 0.0, 1.0), DRAWS))
    assert found["seeds-only t"][0] < 0.1  # the seeds answered the same items, which a t over seeds does not see
    assert found["crossed (ours)"][0] > 0.94


@pytest.mark.parametrize(("num_seeds", "num_items"), [(3, 200), (3, 1319), (5, 500), (10, 200)])
@pytest.mark.parametrize("kind", calibrate.KINDS)
def test_equal_methods_in_an_exam(num_seeds, num_items, kind):
    """Correlated right and wrong answers, A/A: false differences and false equivalence at most 5 %, coverage 93 %."""
    draws = simulate.exam_draws(Exam(num_seeds, num_items, 0.0, *calibrate.KINDS[kind]), EXAMS)
    found = simulate.record(draws)
    assert simulate.found(draws) <= 0.05 + EXAM_SLACK and found.false_equivalent <= 0.05 + EXAM_SLACK
    assert found.coverage >= 0.93 - EXAM_SLACK


@pytest.mark.parametrize("num_seeds", [3, 5, 10])
def test_divergence_on_both_sides_is_no_difference(num_seeds):
    draws = simulate.exam_draws(Exam(num_seeds, 200, 0.0, 0.06, 0.3, divergence=(0.2, 0.2)), EXAMS)
    assert simulate.found(draws) <= 0.05 + EXAM_SLACK


def test_a_divergence_that_no_run_showed_is_in_no_interval():
    """The limit that docs/calibration.md states: 3 seeds, a tenth of the runs diverge, mostly none is seen."""
    found = simulate.record(simulate.exam_draws(Exam(3, 200, 0.0, 0.06, 0.3, divergence=(0.1, 0.0)), EXAMS))
    assert found.coverage < 0.9


@pytest.mark.parametrize(("num_items", "points"), [(1319, 1), (1319, 2), (4000, 1)])
def test_planted_differences_are_found_with_the_power_promised(num_items, points):
    cell = Exam(5, num_items, points / 100, 0.02, 0.2)
    draws = simulate.exam_draws(cell, EXAMS)
    spread = calibrate.spread_of(draws, cell)
    promised = power.chances(spread, 5, num_items, points / 100, points / 100).differs
    assert simulate.found(draws) == pytest.approx(promised, abs=3 * math.sqrt(promised * (1 - promised) / EXAMS))


def test_the_exam_has_the_planted_difference_and_correlated_answers():
    draws = simulate.exam_draws(Exam(5, 500, 0.02, 0.05, 0.3), EXAMS)
    assert draws.means.mean() == pytest.approx(0.02, abs=4 * draws.standard_error / math.sqrt(EXAMS))
    variance = np.mean(draws.parts.seeds + draws.parts.items - draws.parts.residual)
    assert math.sqrt(variance) == pytest.approx(draws.standard_error, rel=0.1)
    discordance = np.mean(draws.parts.residual) * 2500
    assert discordance < 0.3  # independent answers would differ in .48 of the items


@pytest.mark.parametrize("num_seeds", [2, 3, 5, 10])
@pytest.mark.parametrize("p", [0.02, 0.01, 0.002, 0.0005])
def test_small_p_values_come_no_more_often_than_they_say(num_seeds, p):
    """Families need them: 5 methods and 2 tasks ask for .005. Within a tenth from 3 seeds on; at 2 within a half."""
    num = 100_000
    for seed, item in ((0.1, 0.9), (0.3, 0.7), (0.5, 0.5), (0.8, 0.2), (0.5, 0.25), (0.75, 0), (0.3, 0)):
        draws = simulate.normal_draws(Normal(num_seeds, 500, seed, item), num)
        found = np.mean(np.abs(draws.means) > crossed.half_width(draws.parts, p / 2))
        assert found <= p * (1.1 if num_seeds > 2 else 1.5) + 3 * math.sqrt(p / num)


@pytest.mark.parametrize("num_seeds", [3, 5])
@pytest.mark.parametrize(("seed", "item"), [(1, 0), (0.5, 0.25), (0, 0)])
def test_a_pair_of_five_equal_methods_differs_in_one_of_twenty(num_seeds, seed, item):
    plain, adjusted = simulate.false_best(5, Normal(num_seeds, 40, seed, item), 3000)
    assert adjusted <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 3000) < plain


def test_one_recorded_run_differs_from_another_of_the_same_method():
    """Why one seed gives no verdict: by items alone more than a fifth of the recorded pairs "differ"."""
    ones, tries = calibrate.one_seed_each()
    assert tries == 36 and ones / tries > 0.2


@pytest.mark.parametrize("group", recorded_equal.SIZES)
@pytest.mark.parametrize("metric", ["accuracy", "loss"])
def test_recorded_runs_of_one_method_are_not_called_different_or_equivalent_too_often(metric, group):
    """A/A on real runs: LoRA under 48 seeds at two batch sizes, within three errors (jackknife over seeds) of 5 %."""
    for results in recorded_equal.cells().values():
        found = recorded_equal.judged(results, metric, group, 4000)
        assert found.num_seeds == 48 and 0 < found.differs.error < 0.03 and 0 < found.equivalent.error < 0.03
        assert found.differs.value <= 0.05 + 3 * found.differs.error
        assert found.equivalent.value <= 0.05 + 3 * found.equivalent.error


def test_recorded_runs_would_show_an_interval_of_items_alone_and_a_real_difference():
    """The same comparisons fail the interval that forgets the seeds, and find batch 4 against batch 8."""
    four, eight = (recorded_equal.values(results, "accuracy") for results in recorded_equal.cells().values())
    draws = recorded_equal.compared(four, recorded_equal.splits(48, 5, 2000))
    items_only = np.mean(np.abs(draws.means) > 1.96 * np.sqrt(draws.parts.items))
    assert items_only > 0.2
    found = crossed.interval(four - eight)
    assert found.low95 > 0.05


def test_groups_of_seeds_are_disjoint_and_the_jackknife_is_that_of_a_mean():
    chosen = recorded_equal.splits(12, 3, 500)
    assert all(len(set(pair.ravel())) == 6 for pair in chosen)
    numbers = stream(0, "jackknife").standard_normal(400)
    draws = simulate.Draws(numbers, crossed.Parts(*[np.ones(400)] * 3, 1, np.ones(400)), 0.0, 1.0)
    alone = np.arange(400).reshape(400, 1, 1)  # each comparison uses a seed of its own: the error of a mean
    found = recorded_equal.jackknifed(lambda some: float(some.means.mean()), draws, alone, 400)
    assert found.error == pytest.approx(stats.sem(numbers)) and found.value == pytest.approx(numbers.mean())


def test_recorded_comparisons_hold_what_the_seeds_say():
    """The crossed interval of every recorded pair holds the mean, and is as wide as the seeds' own spread asks for."""
    cells = calibrate.recorded_cells()
    for (method, batch), results in cells.items():
        if method == "lora":
            continue
        values = calibrate.answers(results) - calibrate.answers(cells["lora", batch])
        found = crossed.interval(values)
        by_seeds = stats.t.ppf(0.975, 2) * stats.sem(values.mean(1))
        items = float(crossed.half_width(crossed.interval(values.mean(0, keepdims=True)).parts, TAIL_95))
        assert found.high95 - found.mean >= items - 1e-9
        assert found.high95 - found.mean <= math.hypot(by_seeds, items) + 1e-9


def test_the_page_is_of_this_interval():
    """The tables of docs/calibration.md are those of a run now, within rounding and Monte-Carlo error."""
    page = (Path(__file__).parents[1] / "docs" / "calibration.md").read_text(encoding="utf-8")
    assert calibrate.recorded_table() in page
    now = [line.split(" | ") for line in calibrate.normal_table(5000).splitlines()[2:]]
    then = {tuple(line.split(" | ")[:5]): line.split(" | ")[5:7] for line in page.splitlines()}
    for line in now:
        coverage, width = then[tuple(line[:5])]
        assert float(coverage) == pytest.approx(float(line[5]), abs=1.5)
        assert float(width) == pytest.approx(float(line[6]), abs=0.06)
