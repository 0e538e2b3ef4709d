"""`welltuned curvature` on the bundled model: what it prints and leaves, and that it goes on where it was."""

import csv

import pytest

from welltuned import cli
from welltuned.analysis import curvature
from welltuned.cli import _progress
from welltuned.curvature.survey import Survey

STUDY = """
name = "bent"
[model]
base = "abacus-small"
[task]
task = "abacus"
num_train = 64
num_validation = 8
num_test = 8
[train]
rank = 4
batch_size = 16
[axes]
method = ["lora", "pissa"]
learning_rate = [1e-3, 1e-2]
"""
TOP = "model.layers.2.self_attn.q_proj"
CALL = ["curvature", "study.toml", "--samples", "2", "--threads", "1", "--blocks", TOP]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study.toml").write_text(STUDY)
    return tmp_path


def call(*extra):
    cli.main([*CALL, *extra])


def status(*extra):
    with pytest.raises(SystemExit) as ended:
        call(*extra)
    return ended.value.code


def test_a_long_pass_tells_how_many_products_it_has_made(here, capsys, monkeypatch):
    monkeypatch.setattr(_progress, "PLAIN_SECONDS", 0.0)
    assert status() == 0
    told = capsys.readouterr().err
    assert "1/2 blocks" not in told  # the two methods' blocks are one pass
    assert "0/2 blocks (at the start, model.layers.2.self_attn.q_proj; 1 product)" in told
    assert "0/2 blocks (at the start, model.layers.2.self_attn.q_proj; 12 products)" in told


def test_it_prints_ratios_beside_the_published_ones_and_leaves_a_table_and_figures(here, capsys):
    assert status("--blocks", "joint", "--steps", "0", "--steps", "2") == 0
    shown, told = capsys.readouterr()
    assert "0/8 blocks (at the start, model.layers.2.self_attn.q_proj)" in told
    (line,) = [line for line in shown.splitlines() if line.startswith("q_proj  pissa")]
    assert "11.8" in line
    assert "Medians over layers at the start; published: Qwen3-0.6B-Base" in shown
    folder = here / "runs" / "bent" / "curvature"
    assert f"look at {folder.relative_to(here)}/curvature.csv" in shown
    rows = {(row.method, row.step, row.block): row for row in curvature.read(folder)[1]}
    assert len(rows) == 8
    # as curvature goes: Gauss-Newton is a part of H, a joint matrix holds its blocks, P and rates belong to the way
    for (method, step, _), row in rows.items():
        assert row.converged and row.hessian_min < row.hessian_max and row.gauss_newton_max > 0
        assert rows[method, step, "joint"].hessian_max >= 0.98 * rows[method, step, TOP].hessian_max
        assert (row.preconditioned_max is None) == (step == 0) == (row.learning_rate is None)
        assert row.learning_rate in (None, 1e-3)
    assert rows["pissa", 0, TOP].hessian_max > rows["lora", 0, TOP].hessian_max
    assert rows["lora", 0, TOP].hessian_min < -0.2 * rows["lora", 0, TOP].hessian_max
    with (folder / "curvature.csv").open() as file:
        table = list(csv.DictReader(file))
    assert len(table) == 8 and {line["module"] for line in table} == {"q_proj", "joint"}
    assert (folder / "ratios.svg").is_file() and (folder / "eigenvalues.png").is_file()


def test_interrupted_it_goes_on_and_measures_nothing_twice(here, capsys, monkeypatch):
    measured = []
    really = Survey._measure

    def measure(self, point, sites, tell):
        measured.append(sites)
        if len(measured) == 2:
            raise KeyboardInterrupt
        return really(self, point, sites, tell)

    monkeypatch.setattr(Survey, "_measure", measure)
    assert status("--blocks", "joint") == 130
    assert (
        "Interrupted. 2 blocks are stored in runs/bent/curvature; the same command goes on." in capsys.readouterr().err
    )
    path = here / "runs" / "bent" / "curvature" / "rows.jsonl"
    path.write_text(path.read_text() + '{"trial": "half a li')  # what a power cut leaves
    assert status("--blocks", "joint") == 0
    assert measured == [[TOP], [], []]
    assert len(curvature.read(path.parent)[1]) == 4
    assert status("--blocks", "joint") == 0 and len(measured) == 3


def test_rows_of_another_measurement_are_not_mixed_in(here, capsys):
    assert status() == 0
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        cli.main([*CALL, "--samples", "3"])
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert "rows.jsonl: got 'another measurement', expected the same base, data and samples as before; name" in told
