"""The predictor race on recorded surfaces: which cells take part, and that docs/curvature.md says what came out."""

import json

import pytest
from scripts import predictor_race, record_surfaces

from welltuned.analysis import curvature, predictors
from welltuned.plan import expand
from welltuned.search import _prior
from welltuned.spec import Spec

SURFACE = record_surfaces.TABLES / "abacus-small-r8-lora-n1024.jsonl.gz"
LARGE = record_surfaces.TABLES / "abacus-large-r8-lora-n1024.jsonl.gz"


def test_cells_of_another_base_are_left_out_and_fewer_rows_too():
    problem, _ = curvature.read(predictor_race.CURVATURE)
    assert {cell.config.num_train for cell in predictor_race.read_cells(SURFACE)} == {1024}  # not those of 256
    places, num_others = predictor_race.read_places([SURFACE, LARGE], problem)
    assert {(place.method, place.rank) for place in places} == {("lora", 8)}
    assert num_others == len(predictor_race.read_cells(LARGE)) == 4


def test_methods_without_a_rank_race_where_no_rule_needs_one():
    problem, rows = curvature.read(predictor_race.CURVATURE)
    places, _ = predictor_race.read_places(predictor_race.surfaces(), problem)
    assert any(place.rank == 0 for place in places)
    text, lines = predictor_race.report(places, rows)
    assert "in all 64 cells, without what has no number in some ((s r)^-1/2 B^1/2 (muA), (s r)^-1/2, any B, |g|" in text
    assert {line["num_cells"] for line in lines} == {49, 52, 61, 64}


def table_lines(lines):
    """Return the rows of the page's table for the first race of each target."""
    for line in lines:
        name = line["predictor"].removesuffix(" (muA)")
        errors = [line[key] for key in ("error", "method_error", "method_rms", "worst")]
        yield f"| {' | '.join([name, *(f'{error:.2f}' for error in errors)])} |"


def test_the_page_of_curvature_says_what_the_committed_rows_and_surfaces_say():
    problem, rows = curvature.read(predictor_race.CURVATURE)
    places, _ = predictor_race.read_places(predictor_race.surfaces(), problem)
    _, lines = predictor_race.report(places, rows)
    page = (record_surfaces.ROOT / "docs" / "curvature.md").read_text(encoding="utf-8").replace("\\|", "|")
    for line in table_lines([line for line in lines if line["num_cells"] in (49, 52)]):
        assert line in page
    wide = {(line["target"], line["predictor"]): line for line in lines if line["num_cells"] in (61, 64)}
    raw, root = wide["optimum", "1 / lambda"], wide["optimum", "lambda^-1/2"]
    assert f"({raw['error']:.2f} against {root['error']:.2f})" in page
    assert f"({raw['method_rms']:.2f} against {root['method_rms']:.2f})" in page
    for target, number in zip(predictors.TARGETS, (60, 57), strict=True):
        found = predictors.exponent(places, rows, target)
        assert found is not None and found.num_cells == number and f" {found.slope:.2f} (" in page


def test_the_prior_of_the_search_rests_on_development_surfaces():
    """Power and error are those of the page, whose rows come from surfaces that no test of a search is made on."""
    problem, rows = curvature.read(predictor_race.CURVATURE)
    places, _ = predictor_race.read_places(predictor_race.surfaces(only_development=True), problem)
    assert {(place.method, place.rank) for place in places if place.rank == 32} == set()
    _, lines = predictor_race.report(places, [row for row in rows if row.step == 0])
    mine = [line for line in lines if line["target"] == "optimum" and line["num_cells"] == 28]
    page = (record_surfaces.ROOT / "docs" / "curvature.md").read_text(encoding="utf-8").replace("\\|", "|")
    assert all(line in page for line in table_lines(mine))
    best = min(mine, key=lambda line: line["method_rms"])
    assert best["predictor"] == "lambda^-1/2" and _prior.POWER == -0.5
    assert best["method_rms"] == pytest.approx(_prior.CURVATURE_SD, abs=0.01)


def test_the_rows_are_of_the_committed_study():
    """A figure of another base or other data than the surfaces' would be compared with nothing."""
    head = json.loads((predictor_race.CURVATURE / curvature.LINES).read_text().splitlines()[0])
    config = expand(Spec.load(predictor_race.CURVATURE / "study.toml"))[0]
    assert head["problem"] == [str(part) for part in config.data_key()] and head["num_rows"] == 32
