"""`[search] curvature`: what the largest eigenvalues say of where methods' rates lie, and wrong measurements."""

import json
import math
import statistics

import pytest

import searching
import valleys
from small_study import forge_hashes
from test_curvature_rows import row
from welltuned.analysis import curvature
from welltuned.errors import InputError
from welltuned.search import _prior, _space, guided


@pytest.fixture(autouse=True)
def forged(monkeypatch):
    forge_hashes(monkeypatch)


def configs_of(plan):
    return [candidate.config for choice in _space.choices(plan) for candidate in choice.candidates]


def written(folder, rows, problem):
    """Leave what `welltuned curvature` would."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"problem": list(problem)}), *(one.text() for one in rows)]
    (folder / "rows.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def joint(method, eigenvalue, rank=8, **changes):
    return row(method, curvature.JOINT, rank=rank, hessian_max=eigenvalue, scaling=None, **changes)


def measured(tmp_path, rows, methods=("lora", "pissa"), ranks=(8,)):
    """Return a plan that names a folder of these rows, measured on its own base and data."""
    (config, *_) = configs_of(valleys.plan(methods, ranks=ranks))
    folder = written(tmp_path / "curvature", rows, [str(part) for part in config.data_key()])
    return valleys.plan(methods, f'budget = 8\ncurvature = "{folder}"', ranks=ranks)


def expected(plan, sharpness_of):
    """Return the expectation for each method and rank, in octaves, at the smallest batch size."""
    configs = configs_of(plan)
    first = {curvature.key_of(config): config for config in reversed(configs)}
    rule = _prior.rule(configs, plan.width_of, sharpness_of)
    values = rule.expected(list(first.values()))
    return {(key[1], key[2]): float(value) for key, value in zip(first, values, strict=True)}


def test_a_method_of_which_nothing_is_published_goes_where_the_curvature_says(tmp_path):
    """16 times LoRA's eigenvalue: two octaves below it, less what is left to LoRA's rate as a guess."""
    plan = measured(tmp_path, [joint("lora", 2.0), joint("gralora", 32.0)], ("lora", "gralora"))
    before, after = expected(plan, lambda config: None), expected(plan, plan.sharpness_of)
    moved = (after["gralora", 8] - after["lora", 8]) - (before["gralora", 8] - before["lora", 8])
    trust = 1.5**2 / (1.5**2 + _prior.CURVATURE_SD**2)
    assert before["gralora", 8] == pytest.approx(before["lora", 8])
    assert -2.0 < moved < -2.0 * trust + 0.25


def test_a_published_shift_and_the_curvature_are_weighed(tmp_path):
    """PiSSA is published 1.7 octaves below LoRA: a measured ratio of 1 moves it up, and not to LoRA's."""
    plan = measured(tmp_path, [joint("lora", 2.0), joint("pissa", 2.0)])
    before, after = expected(plan, lambda config: None), expected(plan, plan.sharpness_of)
    gap = after["pissa", 8] - after["lora", 8]
    assert before["pissa", 8] - before["lora", 8] == pytest.approx(-1.7)
    assert -1.2 < gap < -0.5


def test_curvature_says_how_methods_differ_and_not_where_they_lie(tmp_path):
    rows = [joint("lora", 2.0), joint("pissa", 32.0)]
    plan = measured(tmp_path, rows)
    scaled = measured(tmp_path / "scaled", [joint("lora", 2e6), joint("pissa", 32e6)])
    assert expected(plan, plan.sharpness_of) == pytest.approx(expected(scaled, scaled.sharpness_of))


def test_one_method_at_one_rank_stays_where_the_rules_have_it(tmp_path):
    plan = measured(tmp_path, [joint("lora", 77.0)], ("lora",))
    assert expected(plan, plan.sharpness_of) == pytest.approx(expected(plan, lambda config: None))


def test_ranks_are_moved_too(tmp_path):
    """The rule has r^-1/2, three octaves of rank apart 1.5 of the rate; equal eigenvalues bring them nearer."""
    plan = measured(tmp_path, [joint("lora", 2.0, 4), joint("lora", 2.0, 32)], ("lora",), (4, 32))
    before, after = expected(plan, lambda config: None), expected(plan, plan.sharpness_of)
    assert before["lora", 4] - before["lora", 32] == pytest.approx(1.5)
    assert 0.1 < after["lora", 4] - after["lora", 32] < 1.3


def test_a_guided_search_finds_an_unpublished_methods_rate_sooner(tmp_path):
    """GraLoRA's optimum is planted 3 octaves below LoRA's, and its eigenvalue says so; two full trials each."""
    regrets = {True: [], False: []}
    rows = [joint("lora", 2.0), joint("gralora", 128.0)]
    knowing = measured(tmp_path, rows, ("lora", "gralora"))
    for knows in (True, False):
        for seed in range(4):
            surface = valleys.Surface(seed, shifts=(("gralora", -3.0),), edge=1.5)
            text = f'budget = 1\ncurvature = "{knowing.spec.search.curvature}"' if knows else "budget = 1"
            plan = valleys.plan(("lora", "gralora"), text, low=-14, high=-2)
            _, results = searching.run(plan, surface.answer)
            results = [one for one in results if one.role != "confirm"]
            best = guided.beliefs(plan, results)[1].best
            regrets[knows].append(surface.regret(_space.choices(plan)[1], best))
    assert statistics.fmean(regrets[True]) < statistics.fmean(regrets[False])


WRONG = {
    "missing": ([joint("lora", 2.0)], r"search.curvature: got '.*curvature', expected a row of pissa, rank 8, alpha r"),
    "after steps only": (
        [joint("lora", 2.0), joint("pissa", 2.0, step=10)],
        r"expected a row of pissa, rank 8, alpha r, block joint; run `welltuned curvature` on this study",
    ),
    "not bent up": ([joint("lora", 2.0), joint("pissa", -1.0)], r"expected a row of pissa, rank 8"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_was_not_measured_is_said(tmp_path, name):
    rows, message = WRONG[name]
    with pytest.raises(InputError, match=message):
        measured(tmp_path, rows)


def test_a_measurement_of_other_data_is_refused(tmp_path):
    folder = written(tmp_path / "curvature", [joint("lora", 2.0)], ["another"])
    with pytest.raises(InputError, match=r"another base, other data.*expected one on this study's; run `welltuned"):
        valleys.plan(("lora",), f'budget = 8\ncurvature = "{folder}"')


def test_a_folder_without_a_measurement_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"expected a folder with rows\.jsonl, or such a file; run `welltuned"):
        valleys.plan(("lora",), f'budget = 8\ncurvature = "{tmp_path}"')
    (tmp_path / "rows.jsonl").write_text("no rows\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"expected the rows\.jsonl of a measurement"):
        valleys.plan(("lora",), f'budget = 8\ncurvature = "{tmp_path}"')


def test_half_a_line_that_a_kill_left_is_no_row(tmp_path):
    folder = written(tmp_path / "curvature", [joint("lora", 2.0)], ["p"])
    with (folder / "rows.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"trial": "lo')
    assert curvature.read(folder) == (("p",), (joint("lora", 2.0),))


def test_other_searches_have_no_use_for_it():
    with pytest.raises(InputError, match=r"search.curvature: got 'runs/a/curvature', expected nothing: search 'sobol'"):
        valleys.plan(settings='budget = 4\ncurvature = "runs/a/curvature"', search="sobol")


def test_the_level_is_the_one_that_fits_the_rules_best(tmp_path):
    """Nothing is moved where the curvature says what the rules say."""
    plan = measured(tmp_path, [joint("lora", 2.0), joint("pissa", 2.0 * 2 ** (2 * 1.7))])
    before, after = expected(plan, lambda config: None), expected(plan, plan.sharpness_of)
    assert all(math.isclose(before[key], after[key], abs_tol=1e-9) for key in before)
