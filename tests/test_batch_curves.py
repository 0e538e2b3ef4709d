"""Curves over batch size: the optimal batch and its coverage, max-shifted distances, the critical batch, costs."""

import json
import pathlib

import numpy as np
import pytest

import planted
from welltuned import rng
from welltuned.analysis import cost, critical_batch, max_shifted, optimum_batch
from welltuned.analysis.runs import Run, Table

BATCHES = (4, 16, 64, 256)
REAL = pathlib.Path(__file__).parents[2] / "shared" / "data"


def hill(best_log2, height=0.7, curvature=0.01):
    """Accuracy over batch size: a parabola in log2 B whose top is at `best_log2`."""
    return lambda run: height - curvature * (np.log2(run.batch_size) - best_log2) ** 2


def stream():
    return rng.stream(0, "tests", "batch")


@pytest.mark.parametrize("best", [3.0, 4.3, 7.5])
def test_the_top_of_a_planted_hill_is_found_exactly_in_either_direction(best):
    table = planted.table(hill(best), batches=BATCHES, rates=(1e-3,), seeds=1)
    (found,) = optimum_batch.optimum_batches(table, stream())
    assert np.log2(found.fitted.value) == pytest.approx(best)
    assert found.edge == "" and found.at(2**best) == pytest.approx(0.7)
    loss = planted.table(lambda run: -hill(best)(run), batches=BATCHES, rates=(1e-3,), seeds=1, higher=False)
    (same,) = optimum_batch.optimum_batches(loss, stream())
    assert same.fitted.value == pytest.approx(found.fitted.value) and same.at(2**best) == pytest.approx(-0.7)


def test_without_repeats_the_optimum_has_no_interval_and_no_plateau():
    (found,) = optimum_batch.optimum_batches(
        planted.table(hill(4.0), batches=BATCHES, rates=(1e-3,), seeds=1), stream()
    )
    assert found.fitted.low is None
    assert found.fitted.basis == "no interval: no configuration was run under two seeds"
    assert found.plateau is None and found.efficient is None


@pytest.mark.parametrize(("best", "edge", "size"), [(0.0, "low", 4), (10.0, "high", 256)])
def test_an_optimum_beyond_the_sizes_tried_is_on_the_edge(best, edge, size):
    table = planted.table(hill(best), batches=BATCHES, rates=(1e-3,), noise=0.001)
    (found,) = optimum_batch.optimum_batches(table, stream())
    assert (found.edge, found.fitted.value, found.best, found.best_edge) == (edge, size, size, edge)
    assert (found.low_open, found.high_open) == (edge == "low", edge == "high")


def test_two_batch_sizes_are_no_parabola():
    (found,) = optimum_batch.optimum_batches(planted.table(hill(4), batches=(4, 16), rates=(1e-3,)), stream())
    assert found.fitted is None and found.reason == "a parabola needs 3 batch sizes, and there are 2"
    assert found.best == 16


def test_the_plateau_is_next_to_the_best_and_the_efficient_batch_is_the_largest_near_it():
    values = {4: 0.70, 16: 0.695, 64: 0.60, 256: 0.696}
    points = [Run("lora", value, 1e-3, batch, sd=0.02, num_seeds=4) for batch, value in values.items()]
    (found,) = optimum_batch.optimum_batches(Table(tuple(points), "accuracy", True), stream())
    assert (found.best, found.plateau, found.efficient) == (4, (4, 16), 256)


def test_the_interval_of_the_optimal_batch_covers_the_truth():
    """200 studies of three seeds each."""
    hits = 0
    for study in range(200):
        table = planted.table(
            hill(5.0), batches=BATCHES, rates=(1e-3,), noise=0.02, problem=(("study", str(study)),)
        )  # fmt: skip
        (found,) = optimum_batch.optimum_batches(table, rng.stream(study, "cover"))
        hits += found.fitted.low <= 32 <= found.fitted.high
    assert hits >= 184


def test_equal_shapes_have_no_distance_and_a_moved_hill_has_the_planted_one():
    def value(run):
        moved = {8: 5.0, 16: 5.0, 32: 7.0}[run.rank]
        return hill(moved)(run) + 0.01 * run.rank

    table = planted.table(value, ranks=(8, 16, 32), batches=BATCHES, rates=(1e-3,), noise=1e-6)
    found = {(one.one, one.other): one for one in max_shifted.distances(table, "rank")}
    assert found["8", "16"].rms == pytest.approx(0, abs=1e-5)
    x = np.log2(BATCHES)
    shapes = [-0.01 * (x - best) ** 2 for best in (5.0, 7.0)]
    gaps = (shapes[0] - shapes[0].max()) - (shapes[1] - shapes[1].max())
    assert found["8", "32"].rms == pytest.approx(np.sqrt(np.mean(gaps**2)), rel=1e-3)
    assert found["8", "32"].overlap == pytest.approx(np.mean(np.abs(gaps) < 1e-5))


def test_curves_of_two_models_are_compared_though_all_else_of_their_problem_is_equal():
    tables = [
        planted.table(hill(5.0), batches=BATCHES, rates=(1e-3,), problem=(("base", base), ("revision", base[::-1])))
        for base in ("small", "large")
    ]
    (found,) = max_shifted.distances(planted.joined(*tables), "base")
    assert (found.one, found.other, found.rms) == ("small", "large", 0.0)
    assert max_shifted.distances(planted.joined(*tables), "rank") == ()


def test_the_fit_of_planted_steps_is_exact():
    batches = [64, 256, 1024, 4096]
    found = critical_batch.critical_batch(batches, [1000 + 3e6 / batch for batch in batches], anchor=64)
    assert (found.floor_steps, found.sequences) == pytest.approx((1000, 3e6))
    assert found.critical.value == pytest.approx(1.2 * 64 + 0.2 * 3000)
    tokens = found.floor_steps * found.critical.value + found.sequences
    assert tokens == pytest.approx(1.2 * (found.floor_steps * 64 + found.sequences))  # 20 % over linear scaling
    assert found.reached


@pytest.mark.realdata
@pytest.mark.skipif(not REAL.is_dir(), reason="the published data sets are not at ../shared/data")
def test_the_authors_critical_batch_sizes_are_reproduced():
    """All five models of Zhang et al. 2025: their fit and their critical batch size."""
    fits = json.loads((REAL / "critical_batch_size" / "authors_fits.json").read_text())
    assert len(fits) == 5
    for fit in fits:
        found = critical_batch.critical_batch(fit["batch_sizes"], fit["steps"])
        assert found.critical.value == pytest.approx(fit["critical_batch_size"], rel=1e-6)
        assert f"log({found.floor_steps:.2f}"[:8] == fit["fit"].split("= ")[1][:8]
        assert found.critical.low < found.critical.value < found.critical.high


def test_a_table_of_steps_takes_the_fewest_over_learning_rates():
    runs = [
        Run("lora", (1000 + 3e6 / batch) * slower, rate, batch)
        for batch in (64, 256, 1024)
        for rate, slower in ((1e-3, 1.0), (1e-2, 1.7))
    ]
    ((_, found),) = critical_batch.critical_batches(Table(tuple(runs), "steps", False)).items()
    assert found.floor_steps == pytest.approx(1000)


def test_steps_that_are_no_curve_are_refused():
    with pytest.raises(ValueError, match="got 2 batch sizes and 2 steps, expected as many, positive, 3 or more"):
        critical_batch.critical_batch([1, 2], [3, 4])


def test_costs_add_up_and_a_partial_sum_is_none():
    runs = (
        Run("lora", 0.5, 1e-3, 4, seconds=2.0, num_tokens=10, peak_bytes=5.0),
        Run("lora", 0.5, 1e-2, 4, seconds=3.0, num_tokens=7, peak_bytes=9.0, diverged=True),
        Run("lora", 0.6, 1e-3, 4, seconds=4.0, selected=False, seed="9", num_tokens=10, peak_bytes=5.0),
        Run("pissa", 0.6, 1e-3, 4, seconds=1.0, num_seeds=3, sd=0.1),
        Run("pissa", 0.6, 1e-2, 4),
    )
    lora, pissa = cost.method_costs(Table(runs, "accuracy", True))
    assert (lora.seconds, lora.num_tokens, lora.peak_bytes, lora.num_runs, lora.num_diverged) == (
        9.0,
        17 + 10,
        9.0,
        3,
        1,
    )
    assert (pissa.seconds, pissa.num_runs) == (None, 4)
    assert len(cost.cell_costs(Table(runs, "accuracy", True))) == 2


def test_the_pareto_front_is_that_of_all_pairs():
    random = rng.stream(0, "pareto")
    draws = random.integers(0, 6, size=(40, 2))
    runs = [
        Run("lora", float(value), 1e-3 * (at + 1), 4, seconds=float(spent)) for at, (value, spent) in enumerate(draws)
    ]
    found = cost.trades(Table(tuple(runs), "accuracy", True))
    for trade in found:
        beaten = any(
            other.value >= trade.value
            and other.cost <= trade.cost
            and (other.value, other.cost) != (trade.value, trade.cost)
            for other in found
        )
        assert trade.on_front is not beaten
    assert 0 < sum(trade.on_front for trade in found) < 40


def test_an_unknown_cost_is_refused():
    with pytest.raises(ValueError, match="cost: got 'money', expected one of num_tokens, seconds, flops, peak_bytes"):
        cost.trades(planted.table(lambda run: 0.5), "money")
