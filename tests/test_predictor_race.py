"""The predictor race on recorded surfaces: which cells take part, and that docs/curvature.md says what came out."""

import json

from scripts import predictor_race, record_surfaces

from welltuned.analysis import curvature, predictors
from welltuned.plan import expand
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
    assert "in all 44 cells, without what has no number in some ((s r)^-1/2 B^1/2 (muA), (s r)^-1/2, any B):" in text
    assert {line["num_cells"] for line in lines} == {40, 44}


def test_the_page_of_curvature_says_what_the_committed_rows_and_surfaces_say():
    problem, rows = curvature.read(predictor_race.CURVATURE)
    places, _ = predictor_race.read_places(predictor_race.surfaces(), problem)
    _, lines = predictor_race.report(places, rows)
    page = (record_surfaces.ROOT / "docs" / "curvature.md").read_text(encoding="utf-8").replace("\\|", "|")
    for line in lines:
        if line["num_cells"] == 40:
            name = line["predictor"].removesuffix(" (muA)")
            errors = [line[key] for key in ("error", "method_error", "worst")]
            assert f"| {' | '.join([name, *(f'{error:.2f}' for error in errors)])} |" in page
    wide = {(line["target"], line["predictor"]): line["error"] for line in lines if line["num_cells"] == 44}
    raw, root = wide["optimum", "1 / lambda"], wide["optimum", "lambda^-1/2"]
    assert f"is missed by {raw:.2f} (1 / lambda), {root:.2f}\n" in page
    raw, null = wide["right edge", "1 / lambda"], wide["right edge", "one rate for all"]
    assert f"it is worse ({raw:.2f} against {null:.2f})" in page
    for target in predictors.TARGETS:
        found = predictors.exponent(places, rows, target)
        assert found is not None and found.num_cells == 40 and f" {found.slope:.2f} (" in page


def test_the_rows_are_of_the_committed_study():
    """A figure of another base or other data than the surfaces' would be compared with nothing."""
    head = json.loads((predictor_race.CURVATURE / curvature.LINES).read_text().splitlines()[0])
    config = expand(Spec.load(predictor_race.CURVATURE / "study.toml"))[0]
    assert head["problem"] == [str(part) for part in config.data_key()] and head["num_rows"] == 32
