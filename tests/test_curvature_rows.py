"""What is said of measured blocks: ratios, learning rates, noise, and the predictor race, on planted numbers."""

import math
import random

import pytest

from welltuned.analysis import curvature, predictors
from welltuned.analysis.curvature import BlockRow, ratios
from welltuned.analysis.predictors import Place, exponent, race
from welltuned.analysis.predictors import predictors as field_of


def row(method="lora", block="model.layers.0.self_attn.q_proj", **changes):
    fields = {
        "trial": f"{method} start", "method": method, "rank": 8, "alpha": "r", "step": 0, "batch_size": None,
        "learning_rate": None, "block": block, "scaling": 1.0, "num_numbers": 100, "num_rows": 10, "num_tokens": 50,
        "loss_nats": 1.0, "hessian_max": 2.0, "hessian_max_error": 0.0, "hessian_min": -1.0, "hessian_min_error": 0.0,
        "gauss_newton_max": 1.0, "gauss_newton_max_error": 0.0, "preconditioned_max": None,
        "preconditioned_max_error": None, "sign_curvature": 4.0, "gradient_l1": 2.0, "gradient_norm": 3.0,
        "noise_trace": 40.0, "weight_gradient_norm": 1.0, "num_products": 20, "converged": True,
    }  # fmt: skip
    return BlockRow(**(fields | changes))


def test_a_row_survives_being_written():
    assert BlockRow.parse(row(noise_trace=None).text()) == row(noise_trace=None)


def test_a_block_is_placed_by_its_name():
    assert (row().layer, row().module) == (0, "q_proj")
    assert (row(block="joint").layer, row(block="joint").module) == (None, "joint")


def test_learning_rates_of_a_row_are_missing_where_the_loss_does_not_bend_up():
    assert row().sign_step == 0.5
    assert row(sign_curvature=-1.0).sign_step is None
    assert row(preconditioned_max=19.0).adam_ceiling == 2.0
    assert row().adam_ceiling is None and row(preconditioned_max=-1.0).adam_ceiling is None


def test_noise_is_told_from_signal():
    """|G|^2 = 9 holds a share of the noise, 40 / 10 rows: the scale is 40 / (9 - 4); 4 rows have (5 + 40 / 4) / 100."""
    assert row().noise_scale == pytest.approx(8.0)
    assert row().gradient_rms(4) == pytest.approx(math.sqrt(15 / 100))
    assert row(gradient_norm=1.0).noise_scale is None  # nothing is left of it
    assert row(gradient_norm=1.0).gradient_rms(4) == pytest.approx(math.sqrt(10 / 100))
    assert row(noise_trace=None).noise_scale is None and row(noise_trace=None).gradient_rms(4) is None


def test_ratios_are_medians_of_the_same_block_at_the_same_rank():
    rows = []
    for layer, (lora, pissa) in enumerate([(1.0, 10.0), (2.0, 40.0), (4.0, 48.0)]):
        block = f"model.layers.{layer}.self_attn.q_proj"
        rows += [row("lora", block, hessian_max=lora), row("pissa", block, hessian_max=pissa, gauss_newton_max=5.0)]
        rows.append(row("pissa", block, rank=16, hessian_max=1e6))  # nothing of LoRA's to be divided by
        rows.append(row("pissa", block, step=10, hessian_max=1e6))
    (found,) = ratios(rows)
    assert (found.method, found.module, found.num_blocks) == ("pissa", "q_proj", 3)
    assert (found.median, found.low, found.high) == (12.0, 10.0, 20.0)
    assert found.gauss_newton == 5.0 and found.published == 11.8


def test_the_published_ratios_are_those_of_the_paper_we_cite():
    assert curvature.PUBLISHED["q_proj"] == {"init_ab": 1.79, "milora": 2.09, "pissa": 11.8, "olora": 60, "lora_ga": 60}


# The race -------------------------------------------------------------------------------------------------------------

TOPS = {"lora": 1.0, "init_ab": 2.0, "milora": 3.0, "pissa": 16.0, "olora": 64.0}


def planted(law, batches=(4, 16, 64), noise=0.0, seed=0):
    """Cells whose learning rate follows a law of (lambda, batch size), and the joint rows that say lambda."""
    draw = random.Random(seed)
    places, rows = [], []
    for method, top in TOPS.items():
        rows.append(row(method, "joint", hessian_max=top, gauss_newton_max=1.0 + 1e-3 * top, sign_curvature=1.0))
        for batch in batches:
            rate = law(top, batch) * 2 ** draw.gauss(0, noise)
            places.append(Place(method, 8, "r", 1.0, batch, rate, None))
    return places, rows


def best(places, rows):
    scores, _ = race(places, rows, "optimum", field_of((0,)))
    return scores


@pytest.mark.parametrize(
    ("law", "winner"),
    [
        (lambda top, batch: 0.1 / top, "1 / lambda"),
        (lambda top, batch: 0.1 * top**-0.5, "lambda^-1/2"),
        (lambda top, batch: 0.01 * batch**0.5, "(s r)^-1/2 B^1/2 (muA)"),
    ],
)
def test_the_law_that_was_planted_wins(law, winner):
    scores = best(*planted(law))
    assert scores[0].predictor == winner
    assert scores[0].error == pytest.approx(0, abs=1e-9) and scores[0].method_error == pytest.approx(0, abs=1e-9)
    assert all(score.error > 0.1 for score in scores[1:])


def test_raw_lambda_loses_where_the_exponent_is_a_half():
    """The error of 1 / lambda is then half of how far log2 lambda is from its mean over the other cells."""
    scores = {score.predictor: score for score in best(*planted(lambda top, batch: top**-0.5, batches=(4,)))}
    logs = [math.log2(top) for top in TOPS.values()]
    gaps = sorted(abs(0.5 * (x - (sum(logs) - x) / 4)) for x in logs)
    assert scores["1 / lambda"].error == pytest.approx(gaps[2])
    assert scores["1 / lambda"].worst == pytest.approx(gaps[-1])
    assert scores["lambda^-1/2"].error < scores["one rate for all"].error


def test_a_learning_rate_is_also_judged_without_a_fit():
    places, rows = planted(lambda top, batch: 8.0)  # the sign step of every row is 2
    scores = {score.predictor: score for score in best(places, rows)}
    assert scores["|g|_1 / s'Hs at the start"].unfitted == pytest.approx(2.0)  # octaves
    assert scores["1 / lambda"].unfitted is None


def test_a_predictor_without_numbers_is_named_and_the_others_run():
    places, rows = planted(lambda top, batch: 0.1 / top)
    scores, out = race(places, rows, "optimum", field_of((0, 10)))
    assert set(out) == {"38 / lambda(P^-1 H) after 10 steps", "|g|_1 / s'Hs after 10 steps"}
    assert scores[0].predictor == "1 / lambda"
    assert race(places, rows, "right edge", field_of((0,)))[0] == ()  # no cell has one


def test_after_steps_the_batch_size_decides_which_row_is_meant():
    places, rows = planted(lambda top, batch: 0.1 * batch)
    for place in places:
        ceiling = 38 / (3.0 * place.batch_size)
        changes = {"trial": place.label, "step": 10, "batch_size": place.batch_size, "preconditioned_max": ceiling}
        rows.append(row(place.method, "joint", **changes))
    scores, _ = race(places, rows, "optimum", field_of((0, 10)))
    assert scores[0].predictor == "38 / lambda(P^-1 H) after 10 steps"
    assert scores[0].unfitted == pytest.approx(math.log2(30))


def test_the_exponent_over_methods_is_found_within_batch_sizes():
    """A rate that rises with the batch size must not be taken for one that hangs on lambda."""
    places, rows = planted(lambda top, batch: 0.1 * batch * top**-0.6, noise=0.05)
    found = exponent(places, rows, "optimum")
    assert found.slope == pytest.approx(-0.6, abs=0.05)
    assert found.low <= found.slope <= found.high and found.num_cells == 15
    assert found.correlation < 0
    assert exponent(places[:6], rows, "optimum") is None  # two methods


def test_cells_of_a_recorded_study_are_read(recorded_cells):
    places = predictors.places(recorded_cells)
    assert {place.method for place in places} == {"lora", "pissa", "milora"}
    assert all(place.optimum is None or 1e-4 < place.optimum < 1 for place in places)


@pytest.fixture
def recorded_cells():
    from pathlib import Path

    from welltuned.analysis.cells import group
    from welltuned.store import recorded

    declaration, results = recorded.read(Path(__file__).parent / "recorded" / "batch_by_method.jsonl.gz")
    return group(results, declaration.cell)


# The figures ----------------------------------------------------------------------------------------------------------


def blocks_of_two_layers():
    rows = []
    for layer in range(2):
        for module in ("q_proj", "up_proj"):
            block = f"model.layers.{layer}.x.{module}"
            rows.append(row("pissa", block, hessian_max=(layer + 1) * 8.0))
            rows.append(row("lora", block, hessian_max=layer + 1.0))
    return [*rows, row("lora", "joint", hessian_max=100.0)]


def test_the_map_holds_loras_eigenvalues_and_the_others_ratios():
    from welltuned.figures import _curvature_map

    numbers = _curvature_map.compute(blocks_of_two_layers())
    assert [panel.name for panel in numbers.panels] == ["lora", "pissa"]
    assert [tile.value for tile in numbers.panels[0].tiles] == [1.0, 1.0, 2.0, 2.0]
    assert {tile.value for tile in numbers.panels[1].tiles} == {8.0}
    assert (numbers.layers, numbers.modules) == ((0, 1), ("q_proj", "up_proj"))
    assert "pissa: from 8 to 8 over 4 blocks" in _curvature_map.alt(numbers)
    assert _curvature_map.compute([row("pissa")]) == (
        "No block of lora was measured at the start, and ratios are to it."
    )


def test_the_pictures_are_written_with_their_numbers(tmp_path):
    from welltuned.figures import _curvature_map, _curvature_ratios
    from welltuned.report.files import write_drawing

    rows = blocks_of_two_layers()
    for name, picture in (("map", _curvature_map.PICTURE), ("ratios", _curvature_ratios.PICTURE)):
        numbers = picture.compute(rows)
        text, _, lacking = write_drawing(name, picture, numbers, tmp_path)
        assert "mathdefault" not in text, "math letters are not parsed, and would stand on the page"
        assert "pissa" in text and not lacking and (tmp_path / f"{name}.png").stat().st_size > 1000
        assert all(
            math.isfinite(value) for line in picture.rows(numbers) for value in line.values() if type(value) is float
        )
    assert "published 11.8" in _curvature_ratios.alt(_curvature_ratios.compute(rows))
    assert _curvature_ratios.compute([row()]).startswith("Ratios need lora and another method")
