"""A search with a budget as it is shown: what the plan counts, what the screen expects, what the report doubts."""

import dataclasses
import io
import json
import re

import pytest

import synthetic
from searching import answering, plan_with, run
from small_study import TEXT, forge_hashes
from welltuned import plan_cost
from welltuned.analysis.caveats import caveats
from welltuned.analysis.summary import summarise
from welltuned.cli import _progress, _standing
from welltuned.cli.plan import plan_text
from welltuned.costs import flops
from welltuned.records import Outcome, Progress, Role, Status, TrainJob
from welltuned.store import Counts, Store
from welltuned.study import Planned, Started

GIB = 2**30
SPEEDS = {"float32": plan_cost.Speed(flops_per_second=1e11, token_seconds=1e-5)}
TWO_PROBLEMS = TEXT.replace("num_train = 512\n", "").replace("[axes]", "[axes]\nnum_train = [256, 512]")


@pytest.fixture(autouse=True)
def forged(monkeypatch):
    forge_hashes(monkeypatch)


@pytest.mark.parametrize(("text", "num_problems"), [(TEXT, 1), (TWO_PROBLEMS, 2)])
def test_the_plan_counts_what_the_search_then_trains(text, num_problems):
    plan = plan_with("uniform", "budget = 3", text)
    shown = plan_cost.summary(plan, 4 * GIB, SPEEDS)
    _, results = run(plan, answering(lambda config: 1.0 + config.learning_rate))
    for row in shown.arms:
        mine = [r for r in results if r.config.method == row.name]
        assert row.num_select == 4 * num_problems and row.budget == 3 * num_problems
        assert row.num_winners == num_problems and row.num_reserve == 0
        assert row.num_confirm == sum(r.role is Role.CONFIRM for r in mine) == 2 * num_problems
    assert shown.cost.num_trials == len(results)
    assert shown.cost.num_tokens == sum(flops.work(r.config, plan.survey_of(r.config)).num_tokens for r in results)


def test_the_plan_says_what_may_be_spent_and_on_what():
    plan = plan_with("sobol", "budget = 2.5", TWO_PROBLEMS)
    page = plan_text(plan, plan_cost.summary(plan, 4 * GIB, SPEEDS), 4 * GIB)
    assert re.search(r"arm +axes +combinations +budget +chosen +reruns", page)
    assert re.search(r"lora .* 8 +5 runs +2 +4 ", page)
    assert "search: sobol spends up to 2.5 run-equivalents on each method within each num_train; counted below" in page
    assert "in all: 16 trials with reruns" in page


def test_the_plan_of_a_grid_speaks_of_no_budget():
    plan = plan_with("grid", "")
    page = plan_text(plan, plan_cost.summary(plan, 4 * GIB, SPEEDS), 4 * GIB)
    assert "reserve  cells" in page and "run-equivalents" not in page.split("in all")[1]


def counts(num_trials: int, num_open: int) -> Counts:
    return Counts(num_trials, num_trials - num_open, 0, 0, 0, num_open, 0, 1, 1, 0)


def test_progress_counts_the_trials_that_are_known_and_promises_no_end_before_the_reruns():
    page, now = io.StringIO(), [0.0]
    observer = _progress.Observer(_progress.PlainScreen(page, lambda: now[0]), lambda: now[0])
    plan = plan_with("halving", "budget = 3", TEXT)
    trials = plan.trials()
    observer(Planned(plan, counts(0, 0)))
    assert "small: search halving, up to 6 full trials' worth and 4 reruns on fresh seeds" in page.getvalue()
    now[0] = 60.0
    observer(Started(TrainJob("p", trials, 4), counts(20, 20)))
    assert "0/24 trials known so far" in page.getvalue()
    for trial in trials:
        now[0] += 60
        observer(Outcome(trial.id, Status.FINISHED, "", 1, 1, 1, 1.0, 1.0, 0.0, 1.0, None, (), 1))
    assert "left" not in page.getvalue()
    reruns = [dataclasses.replace(trial, role=Role.CONFIRM) for trial in trials[:4]]
    now[0] += 60
    observer(Started(TrainJob("q", tuple(reruns), 4), counts(30, 4)))
    last = page.getvalue().splitlines()[-1]
    assert last.endswith("26/30 trials")  # reruns are of another length than what was trained so far
    now[0] += 30
    observer(Progress("q", 0.25, 100.0))
    assert page.getvalue().splitlines()[-1].endswith("26/30 trials, 100 tokens/s, about 1 min 30 s left")


def test_show_expects_reruns_of_one_winner_for_each_method(tmp_path):
    for budget, expected in (("", 4 * 2), ('search = "uniform"\nbudget = 3', 2 * 2)):
        plan = plan_with("grid", "", TEXT) if not budget else plan_with("uniform", "budget = 3", TEXT)
        with Store.create(tmp_path / str(expected), "small", plan.spec.text(), plan.spec.hash()) as store:
            store.settle("cell", json.dumps(plan.cell))
            store.add_jobs([TrainJob("p", tuple(plan.trials()), 4)])
            assert _standing.read(store).num_reruns == expected


# What the report doubts -----------------------------------------------------------------------------------------------

BUDGET = dataclasses.replace(synthetic.DECLARATION, budget=6.0)


def of_a_search():
    """The synthetic study as a search leaves it: of every method the best cell is confirmed, the others are not."""
    results, declaration = synthetic.study()
    best = {row.label for row in summarise(results, declaration.cell) if row.is_winner}
    labels = {row.key: row.label for row in summarise(results, declaration.cell)}

    def is_best(result):
        return labels[tuple((name, getattr(result.config, name)) for name in declaration.cell)] in best

    return [r for r in results if r.role is Role.SELECT or is_best(r)], best


def texts(results, declaration, kind):
    return [one.text for one in caveats(results, declaration) if one.kind == kind]


def test_what_was_not_chosen_needs_no_rerun_and_what_was_chosen_does():
    results, best = of_a_search()
    assert not [text for text in texts(results, BUDGET, "single seed") if "No fresh-seed rerun" in text]
    assert [text for text in texts(results, synthetic.DECLARATION, "single seed") if "No fresh-seed rerun" in text]
    alone = [r for r in results if r.role is Role.SELECT or r.config.method != "lora"]
    (text,) = [text for text in texts(alone, BUDGET, "single seed") if "No fresh-seed rerun" in text]
    (label,) = [label for label in best if label.startswith("lora")]
    assert text.startswith(
        f"No fresh-seed rerun of {label}:" if "," not in label else f"No fresh-seed rerun of “{label}”:"
    )


def test_the_winner_is_what_the_search_chose_though_another_had_a_lower_loss():
    """Guided search chooses by its model: the lowest loss is the luckiest."""
    results, declaration = synthetic.study()
    rows = [row for row in summarise(results, declaration.cell) if row.method == "lora"]
    lucky, chosen = sorted(rows, key=lambda row: row.selection_nll)[:2]
    left = [r for r in results if r.role is Role.SELECT or r.config.batch_size == chosen.batch_size]
    for row in summarise(left, declaration.cell):
        if row.method == "lora":
            assert row.is_winner == (row.key == chosen.key), lucky.label


def test_an_edge_is_one_of_all_rates_that_the_search_tried_with_the_method():
    """Of each cell one rate is left, so that within cells nothing can be told."""
    results, _ = of_a_search()
    rows = {row.key: row for row in summarise(results, BUDGET.cell)}

    def is_selected(result):
        key = tuple((name, getattr(result.config, name)) for name in BUDGET.cell)
        return result.config.learning_rate == rows[key].selected_rate

    sparse = [r for r in results if is_selected(r)]
    lowest = min(r.config.learning_rate for r in results if r.config.method == "lora")
    sparse += [
        r for r in results if r.config.method == "lora" and r.config.learning_rate in (lowest,) and not is_selected(r)
    ]
    edges = " ".join(texts(sparse, BUDGET, "edge"))
    chosen = next(row for row in summarise(sparse, BUDGET.cell) if row.is_winner and row.method == "pissa")
    tried = sorted({r.config.learning_rate for r in sparse if r.config.method == "pissa"})
    assert ("pissa" in edges) == (chosen.selected_rate in (tried[0], tried[-1]))
    probed = [dataclasses.replace(r, role=Role.PROBE) for r in results if r.role is Role.SELECT and not is_selected(r)]
    assert "pissa" not in " ".join(texts([*sparse, *probed], BUDGET, "edge"))


def test_unequal_spending_of_equal_budgets_is_for_the_record():
    results, _ = of_a_search()
    fewer = [r for i, r in enumerate(results) if r.config.method != "pissa" or r.role is Role.CONFIRM or i % 2]
    (text,) = texts(fewer, BUDGET, "budget")
    assert text.startswith("Every method could spend 6 run-equivalents, and they spent lora ")
    assert not [one for one in caveats(fewer, BUDGET) if one.kind == "budget" and one.serious]
    assert [one for one in caveats(fewer, synthetic.DECLARATION) if one.kind == "budget" and one.serious]
