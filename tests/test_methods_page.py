"""`welltuned methods` and docs/methods.md say of every method what its file and the measurements say."""

import json
import pathlib
import tomllib

import pytest
from scripts import measure_methods

from welltuned import cli, plugins
from welltuned.cli.methods import costs

ROOT = pathlib.Path(__file__).parents[1]


def call(*arguments: str) -> int:
    try:
        cli.main(("methods", *arguments))
    except SystemExit as done:
        return int(done.code or 0)
    return 0


def test_the_list_has_every_method(capsys):
    assert call() == 0
    shown = capsys.readouterr().out
    for name in plugins.names("methods"):
        assert f" {name} " in f" {shown} ".replace("\n", " ")
    assert call("--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == plugins.names("methods")
    assert all(row["measured"]["memory"] > 0 and row["measured"]["time"] != 0 for row in rows)
    assert all(row["paper"] and row["trains"] and row["formula"] and row["advice"] for row in rows)


@pytest.mark.parametrize("name", [*plugins.names("methods"), "dora+pissa"])
def test_one_is_explained(name, capsys):
    assert call(name) == 0
    shown = " ".join(capsys.readouterr().out.split())
    method = plugins.load("methods", name)
    assert method.summary.split(":")[0] in shown
    counted = method.num_trainable(4096, 4096, 16)
    assert f"{counted:,} at a weight of 4096 x 4096" in shown
    assert ("rank = 8" in shown) == method.uses_rank
    assert f"welltuned doctor --method {name}" in shown


def test_what_serving_costs_is_shown_where_it_was_measured(capsys, monkeypatch):
    found = costs()["pissa"] | {"time": 1.15, "memory": 1.25, "generation": {"8": 1.375, "32": 1.5}}
    monkeypatch.setattr("welltuned.cli.methods.costs", lambda: {"pissa": found})
    assert call("pissa") == 0
    shown = " ".join(capsys.readouterr().out.split())
    line = "1.15 times lora's training time, 1.25 times its memory, unmerged 1.38 times the time of a merged answer"
    assert line in shown
    assert call() == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[-2:] for line in lines if line[:1] == ["pissa"]] == [["1.15", "1.38"]]


def test_an_unknown_method_is_refused_with_a_suggestion(capsys):
    assert call("pisa") == 2
    assert "did you mean 'pissa'?" in capsys.readouterr().err


def test_the_page_says_what_was_measured():
    """The committed page is what the script writes from the committed numbers, and these have every method."""
    text = measure_methods.PAGE.read_text(encoding="utf-8")
    assert measure_methods.page(text) == text
    assert list(costs()) == plugins.names("methods")


def test_a_study_of_all_methods_has_all_with_equal_budgets():
    study = tomllib.loads((ROOT / "studies" / "all_methods.toml").read_text(encoding="utf-8"))
    assert set(plugins.names("methods")) <= set(study["axes"]["method"])
    assert set(study["methods"]) <= set(study["axes"]["method"])
