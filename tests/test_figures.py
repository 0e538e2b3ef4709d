"""Every figure's numbers against the planted study, its caption, and that it draws; its ink is looked at by people."""

import dataclasses
import itertools
import json
import math
import subprocess
import sys

import pytest
from matplotlib.figure import Figure

import synthetic
from synthetic import Design, Valley
from welltuned import plugins
from welltuned.figures import _ink
from welltuned.records import Result, Role, Status

NAMES = plugins.names("figures")


def numbers_of(name, results, declaration=synthetic.DECLARATION):
    return plugins.load("figures", name).compute(results, declaration)


DRAWN = sorted(set(NAMES) - {"differences"})  # which needs a verdict: test_compare.py


@pytest.fixture(scope="module")
def planted() -> tuple[Result, ...]:
    """Return the usual study with noise."""
    return synthetic.study(Design(noise=0.004))[0]


def test_the_figures_promised_are_there():
    assert NAMES == [
        "accuracy_by_batch",
        "attribution",
        "differences",
        "flips_map",
        "heatmap",
        "learning_rate_sweeps",
        "loss_by_batch",
        "optimal_learning_rate",
        "pareto",
        "throughput",
        "tuning_curve",
    ]


@pytest.mark.parametrize("name", DRAWN)
def test_every_figure_draws_and_says_what_it_shows(name, planted):
    picture = plugins.load("figures", name)
    numbers = picture.compute(planted, synthetic.DECLARATION)
    assert dataclasses.is_dataclass(numbers) and numbers.__dataclass_params__.frozen
    assert isinstance(picture.draw(numbers), Figure)
    assert picture.caption(numbers).endswith(".") and "None" not in picture.caption(numbers)
    assert json.dumps(picture.rows(numbers), allow_nan=False)
    if name != "attribution":  # whose rows are factors
        named = {row[column] for row in picture.rows(numbers) for column in ("method", "other") if column in row}
        assert named == {"lora", "milora", "pissa"}


@pytest.mark.parametrize("name", NAMES)
def test_a_figure_without_numbers_says_why(name):
    reason = numbers_of(name, ())
    assert isinstance(reason, str) and reason.endswith(".")
    lost = [dataclasses.replace(one, status=Status.LOST, seconds=0.0) for one in synthetic.study()[0]]
    assert isinstance(numbers_of(name, lost), str)


@pytest.mark.parametrize("name", NAMES)
def test_every_figure_survives_odd_studies(name, planted):
    odd = [
        synthetic.study(Design(valleys=(Valley("lora", -2.5),), batches=(16,)))[0],  # one cell
        synthetic.study(Design(rates=(1e-3,)))[0],  # one learning rate
        synthetic.study(Design(fresh_seeds=1, graded=False))[0],
        synthetic.study(Design(valleys=(Valley("lora", -2.5, diverge_log10=-9.0),)))[0],  # all diverged
        [one for one in planted if one.role is Role.SELECT][:5],  # hardly begun
        [one for one in planted if one.role is Role.SELECT][::3],  # holes in the grid
    ]
    picture = plugins.load("figures", name)
    for results in odd:
        numbers = picture.compute(results, synthetic.DECLARATION)
        if not isinstance(numbers, str):
            assert json.dumps(picture.rows(numbers), allow_nan=False) and picture.caption(numbers)
            assert isinstance(picture.draw(numbers), Figure)


def test_further_axes_are_further_lines():
    low, _ = synthetic.study(Design(changes={"rank": 4}))
    high, _ = synthetic.study(Design(changes={"rank": 32}))
    declaration = dataclasses.replace(synthetic.DECLARATION, cell=("method", "rank", "batch_size"))
    numbers = numbers_of("accuracy_by_batch", low + high, declaration)
    assert [one.name for one in numbers.series][:3] == ["lora, rank 4", "lora, rank 32", "milora, rank 4"]
    looks = _ink.looks([(one.method, one.name) for one in numbers.series])
    assert looks["lora, rank 4"].colour == looks["lora, rank 32"].colour
    assert looks["lora, rank 4"].dash != looks["lora, rank 32"].dash


def test_methods_keep_their_colours_whatever_their_order():
    one = _ink.looks([("pissa", "pissa"), ("lora", "lora")])
    assert one == _ink.looks([("lora", "lora"), ("pissa", "pissa")])
    assert len({look.colour for look in _ink.looks([(str(n), str(n)) for n in range(7)]).values()}) == 7
    assert len(set(_ink.looks([(str(n), str(n)) for n in range(14)]).values())) == 14
    many = _ink.looks([(str(n), str(n)) for n in range(40)]).values()
    assert len({(look.colour, look.marker) for look in many}) == 40  # points have no dashes


@pytest.mark.parametrize("name", ["learning_rate_sweeps", "loss_by_batch", "pareto", "tuning_curve"])
def test_a_long_legend_takes_nothing_from_the_panels(name):
    def axes_of(num_methods):
        valleys = tuple(synthetic.Valley(f"method_{n}", -2.5 - 0.1 * n) for n in range(num_methods))
        results, declaration = synthetic.study(Design(valleys=valleys))
        picture = plugins.load("figures", name)
        drawing = picture.draw(picture.compute(results, declaration))
        drawing.draw_without_rendering()
        panel = drawing.axes[0]
        height = panel.get_window_extent().height / drawing.dpi
        label = next(axes.yaxis.label for axes in drawing.axes if axes.get_ylabel())
        return height, label.get_window_extent(), drawing.legends[0].get_window_extent(), drawing.bbox

    few, *_ = axes_of(2)
    many, label, legend, page = axes_of(18)
    assert many > 0.85 * few
    assert label.y0 >= page.y0 - 1 and label.y1 <= page.y1 + 1 and not label.overlaps(legend)


def test_accuracy_by_batch_reads_fresh_seeds_only(planted):
    numbers = numbers_of("accuracy_by_batch", planted)
    reading = numbers.series[0].readings[1]
    fresh = [
        one.test_accuracy
        for one in planted
        if one.role is Role.CONFIRM and (one.config.method, one.config.batch_size) == ("lora", 16)
    ]
    assert reading.values == tuple(fresh) and reading.interval.mean == pytest.approx(sum(fresh) / 3)
    caption = plugins.load("figures", "accuracy_by_batch").caption(numbers)
    assert "3 fresh seeds" in caption and "95 % t interval" in caption and "Test items: 200" in caption


def test_accuracy_by_batch_counts_what_it_drops(planted):
    some = [one for one in planted if one.role is Role.SELECT or one.config.batch_size != 64]
    picture = plugins.load("figures", "accuracy_by_batch")
    numbers = picture.compute(some, synthetic.DECLARATION)
    assert numbers.num_missing == 3 and "3 cells without a rerun left out" in picture.caption(numbers)
    ungraded = [dataclasses.replace(one, test_correct=None) for one in planted]
    assert picture.compute(ungraded, synthetic.DECLARATION) == "The study grades no test answers."


def test_sweeps_mark_divergence_and_the_selected_rate(planted):
    picture = plugins.load("figures", "learning_rate_sweeps")
    numbers = picture.compute(planted, synthetic.DECLARATION)
    pissa = next(sweep for sweep in numbers.sweeps if (sweep.method, sweep.batch_size) == ("pissa", 16))
    assert [rate.num_diverged for rate in pissa.rates] == [0] * 9 + [1] * 2
    assert {rate.mean_nll for rate in pissa.rates if rate.num_diverged} == {synthetic.BASE_NLL}
    assert pissa.selected_rate == min(pissa.rates, key=lambda rate: rate.mean_nll).learning_rate
    assert numbers.base_nll == pytest.approx(synthetic.BASE_NLL)
    assert "divergence (12 trials)" in picture.caption(numbers) and "hence no interval" in picture.caption(numbers)


def test_sweeps_have_bars_only_with_seeds():
    picture = plugins.load("figures", "learning_rate_sweeps")
    numbers = picture.compute(synthetic.study(Design(seeds=2, noise=0.01))[0], synthetic.DECLARATION)
    assert "one standard deviation over seeds" in picture.caption(numbers)
    assert all(rate.sd_nll is not None for sweep in numbers.sweeps for rate in sweep.rates)


def test_the_heat_map_frames_one_tile_for_each_column_and_leaves_untried_ones_blank():
    results, declaration = synthetic.study(Design())
    numbers = numbers_of("heatmap", results)
    assert [sum(tile.selected for tile in panel.tiles) for panel in numbers.panels] == [3, 3, 3]
    assert numbers.num_blank == 0
    fewer = [one for one in results if one.config.method == "lora" or one.config.learning_rate < 1e-2]
    picture = plugins.load("figures", "heatmap")
    assert "Grey: not tried" in picture.caption(picture.compute(fewer, declaration))


def test_optimal_learning_rates_are_the_planted_ones_with_their_slope():
    numbers = numbers_of("optimal_learning_rate", synthetic.study(Design())[0])
    for track, valley in zip(numbers.tracks, Design().valleys, strict=True):
        for batch, found in zip(track.batches, track.optima, strict=True):
            assert math.log10(found.learning_rate) == pytest.approx(synthetic.truth(valley, batch), abs=1e-9)
        assert track.slope == pytest.approx(valley.slope / math.log10(2))


def test_an_optimum_on_the_edge_is_hollow_and_out_of_the_slope():
    results, declaration = synthetic.study(
        Design(rates=synthetic.RATES[:7])
    )  # up to 3.2e-3: lora at batch 64 is cut off
    picture = plugins.load("figures", "optimal_learning_rate")
    numbers = picture.compute(results, declaration)
    lora = numbers.tracks[0]
    assert lora.optima[2].learning_rate is None and lora.optima[2].edge == "high"
    assert numbers.num_edges >= 1 and "whose best is on the grid's edge" in picture.caption(numbers)


def test_the_flips_map_frames_what_contradicts_the_tuned_order():
    """Lora is best at 1e-2 and pissa, 0.05 nats behind, at 1e-3: below 10^-2.55 pissa is ahead."""
    valleys = (Valley("lora", -2.0, floor=0.40, slope=0.0), Valley("pissa", -3.0, floor=0.45, slope=0.0))
    rates = tuple(10 ** (exponent / 4) for exponent in range(-13, -6))  # 5.6e-4 to 1.8e-2: no loss reaches the base's
    numbers = numbers_of("flips_map", synthetic.study(Design(valleys=valleys, rates=rates))[0])
    (panel,) = numbers.panels
    assert (panel.one, panel.other, panel.tuned_ahead) == ("lora", "pissa", "lora")
    assert panel.tuned_advantage == pytest.approx(0.05)
    assert len(panel.tiles) == 7 * 3
    for tile in panel.tiles:
        away = math.log10(tile.learning_rate)
        truth = 0.05 + 0.5 * ((away + 3) ** 2 - (away + 2) ** 2)
        assert tile.advantage == pytest.approx(truth)
        assert (tile.ahead, tile.flipped) == (("lora", False) if away > -2.55 else ("pissa", True))
    assert panel.num_flipped == 3 * 3
    caption = plugins.load("figures", "flips_map").caption(numbers)
    assert "21 shared configurations, 1 seed each. A frame marks 9 that contradict" in caption and "Grey" not in caption


def test_the_attribution_gives_the_planted_shares():
    """One method, two batch sizes 0.06 nats apart, three rates on a parabola: main effects only, and tuned, batch."""
    valley = Valley("lora", -3.0, slope=0.0)
    design = Design(valleys=(valley,), batches=(4, 16), rates=(10**-3.5, 10**-3.0, 10**-2.5))
    (panel,) = numbers_of("attribution", synthetic.study(design)[0]).panels
    bars = {bar.term: bar for bar in panel.bars}
    batch, rate = 6 * 0.03**2, 4 * (2 * (0.125 / 3) ** 2 + (0.25 / 3) ** 2) / 2  # sums of squares about the mean
    assert bars["batch size"].raw == pytest.approx(batch / (batch + rate))
    assert bars["learning rate"].raw == pytest.approx(rate / (batch + rate))
    assert bars["rest"].raw == pytest.approx(0.0, abs=1e-12)
    assert bars["batch size"].tuned == pytest.approx(1.0) and bars["learning rate"].tuned is None
    assert panel.sd_raw == pytest.approx(math.sqrt((batch + rate) / 5))
    assert (panel.num_raw, panel.num_tuned) == (6, 6)


def test_the_tuning_curve_is_the_mean_over_all_draws():
    """Against every subset of the eight configurations, listed."""
    design = Design(valleys=(Valley("lora", -2.5),), batches=(4, 16), rates=synthetic.RATES[4:8])
    results, declaration = synthetic.study(design)
    (curve,) = numbers_of("tuning_curve", results, declaration).curves
    losses = [one.validation_nll for one in results if one.role is Role.SELECT]
    assert len(curve.expected) == len(losses) == 8
    for k in range(1, 9):
        best = sorted(min(draw) for draw in itertools.combinations(losses, k))
        assert curve.expected[k - 1] == pytest.approx(sum(best) / len(best))
        assert curve.low[k - 1] <= curve.expected[k - 1] <= curve.high[k - 1]
    assert curve.low[0] == pytest.approx(min(losses)) and curve.high[0] == pytest.approx(max(losses))


def test_the_front_is_what_no_other_configuration_beats():
    """Against comparing all pairs; a diverged trial, cheap as it is, is not among them."""
    results, declaration = synthetic.study(Design(noise=0.02))
    numbers = numbers_of("pareto", results, declaration)
    (panel,) = numbers.panels
    trials = [one for one in results if one.role is Role.SELECT and one.status is Status.FINISHED]
    assert sorted(point.nll for point in panel.points) == pytest.approx(sorted(one.validation_nll for one in trials))
    assert numbers.num_diverged == 12
    for point in panel.points:
        beaten = any(
            other.nll <= point.nll
            and other.seconds <= point.seconds
            and (other.nll < point.nll or other.seconds < point.seconds)
            for other in panel.points
        )
        assert point.on_front is not beaten
    front = [(point.seconds, point.nll) for point in panel.front]
    assert front == sorted(front) and [nll for _, nll in front] == sorted((nll for _, nll in front), reverse=True)


def test_names_with_dollars_and_brackets_are_drawn_as_they_are():
    valleys = (Valley("a$b<c>&", -2.5), Valley("$\\frac", -2.6))
    results, declaration = synthetic.study(Design(valleys=valleys))
    for name in DRAWN:
        picture = plugins.load("figures", name)
        with picture.style():
            picture.draw(picture.compute(results, declaration)).canvas.draw()


def test_computing_numbers_loads_no_matplotlib():
    code = (
        "import sys; from welltuned import plugins\n"
        "for name in plugins.names('figures'): plugins.load('figures', name)\n"
        "print('matplotlib' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=_environment())
    assert done.stdout.strip() == "False"


def _environment():
    import os
    import pathlib

    return {**os.environ, "PYTHONPATH": str(pathlib.Path(__file__).parents[1] / "src")}
