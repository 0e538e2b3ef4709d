"""Audits of published tables, where these are at hand: the facts are recomputed with pandas, not our own reader."""

import json
import pathlib

import pandas
import pytest

from welltuned.audit import Request, audit
from welltuned.audit.conclusions import Standing
from welltuned.errors import InputError

REAL = pathlib.Path(__file__).parents[2] / "shared" / "data"
PEFT = REAL / "peft_method_comparison" / "runs.csv"
TINKER = REAL / "tinker_sft_sweep" / "sft_sweep.csv"
MLPERF = REAL / "mlperf_llama2_70b_lora" / "runs.csv"
pytestmark = [
    pytest.mark.realdata,
    pytest.mark.skipif(not REAL.is_dir(), reason="the published data sets are not at ../shared/data"),
]


def texts(found) -> str:
    return "\n".join(finding.text for finding in found.findings)


def test_pefts_comparison_has_one_seed_one_batch_size_and_an_untuned_baseline():
    rows = pandas.read_csv(PEFT)
    lora = rows[rows.peft_type == "LORA"]
    assert (rows.seed.nunique(), rows.batch_size.nunique(), lora.lr.nunique()) == (1, 1, 1)
    found = audit(PEFT, Request(values={"num_items": "1319"}))
    assert len(found.book.judging.entries) == len(rows) == 184
    assert "LORA was tuned over 1 learning rate, 1 batch size and 4 ranks: comparisons in this" in found.verdict[0]
    rates = rows.groupby("peft_type").lr.nunique()
    assert {row.method: row.knob("learning_rate").count for row in found.tuned} == rates.to_dict()
    assert {row.method for row in found.tuned if row.knob("learning_rate").count == 1} == set(rates[rates == 1].index)
    assert {row.num_seeds for row in found.tuned} == {1}


def test_no_conclusion_of_pefts_comparison_survives_and_none_is_pretended():
    rows = pandas.read_csv(PEFT)
    found = audit(PEFT, Request(values={"num_items": "1319"}))
    assert not [one for one in found.conclusions if one.standing is Standing.SURVIVES]
    assert len(found.conclusions) == rows.peft_type.nunique() - 1
    (lily,) = [one for one in found.conclusions if one.winner == "LILY"]
    best = rows.groupby(["peft_type", "experiment"]).test_accuracy.mean().groupby("peft_type").max()
    assert lily.difference == pytest.approx(best["LILY"] - best["LORA"])
    assert lily.standing is Standing.DOES_NOT


def test_the_spread_of_pefts_reruns_is_pooled_over_experiments():
    """An experiment whose settings were changed under the same name is two configurations."""
    settings = ["experiment", "lr", "r", "alpha", "weight_decay", "optimizer", "max_steps"]
    groups = pandas.read_csv(PEFT).groupby(settings, dropna=False).test_accuracy
    dof = int((groups.size() - 1).sum())
    sd = float(((groups.size() - 1) * groups.var().fillna(0)).sum() / dof) ** 0.5
    text = texts(audit(PEFT))
    assert f"A single run varies by {100 * sd:.1f} points (standard deviation within repeats, {dof} degrees" in text


def test_pefts_result_file_is_the_row_of_its_table():
    path = REAL / "peft_method_comparison" / "example_full_result__lora_rank32.json"
    (row,) = audit(path).tuned
    rows = pandas.read_csv(PEFT)
    (same,) = rows[rows.in_head & (rows.experiment == "lora/llama-3.2-3B-rank32")].itertuples()
    assert row.headline.value == same.test_accuracy
    assert (row.chosen.place.learning_rate, row.chosen.place.rank) == (same.lr, same.r)
    assert row.method == "lora" and json.loads(path.read_text())["run_info"]["train_config"]["batch_size"] == 4


def test_the_tinker_sweep_keeps_its_diverged_runs():
    rows = pandas.read_csv(TINKER)
    finished = rows[rows.diverged == 0]
    found = audit(TINKER, Request(values={"method": "lora"}))
    assert sum(row.num_diverged for row in found.tuned) == rows.diverged.sum() == 110
    assert len(found.book.judging.entries) == len(finished) + 110
    best = finished.groupby("model").test_nll.min()
    repeated = finished.groupby(["model", "lr", "lora_rank"]).test_nll.mean().groupby("model").min()
    assert {dict(row.problem)["model"]: row.headline.value for row in found.tuned} == pytest.approx(repeated.to_dict())
    assert set(best.index) == {dict(row.problem)["model"] for row in found.tuned} and len(best) == 35
    assert "lora is the only method" in found.verdict[1] and "too few" in found.verdict[0]


def test_a_rate_at_which_all_diverged_encloses_the_best_one():
    """Llama-3.1-8B's best rate is below 3e-3, where every rank diverged: no edge."""
    rows = pandas.read_csv(TINKER)
    here = rows[rows.model == "meta-llama/Llama-3.1-8B"]
    finished = here[here.diverged == 0]
    assert here[here.diverged > 0].lr.tolist() == ["3e-03"]
    (row,) = [
        row for row in audit(TINKER, Request(values={"method": "lora"})).tuned if "Llama-3.1-8B')" in str(row.problem)
    ]
    assert row.knob("learning_rate").count == finished.lr.nunique() + 1
    assert max(row.knob("learning_rate").values) == 3e-3 and row.knob("learning_rate").edge == ""


def test_mlperf_asks_which_loss_and_counts_rates_and_batches():
    with pytest.raises(InputError, match=r"got 2 columns that may be meant \(final_eval_loss, best_eval_loss\)"):
        audit(MLPERF, Request(values={"method": "lora"}))
    rows = pandas.read_csv(MLPERF)
    (row,) = audit(MLPERF, Request({"metric": ("final_eval_loss",)}, {"method": "lora"})).tuned
    assert row.knob("learning_rate").count == rows.opt_base_learning_rate.nunique() == 8
    assert row.knob("batch_size").count == rows.global_batch_size.nunique() == 9
    assert row.knob("rank").count == rows.lora_rank.nunique() == 1
    assert (row.num_runs, row.num_seeds) == (len(rows), rows.seed.nunique())


def test_samples_to_target_have_no_direction_and_one_run_never_arrived():
    request = Request({"metric": ("samples_to_0925",)}, {"method": "lora"})
    with pytest.raises(InputError, match="add --higher-is-better or --lower-is-better"):
        audit(MLPERF, request)
    found = audit(MLPERF, Request(request.columns, request.values, higher_is_better=False))
    assert len(found.book.unscored) == pandas.read_csv(MLPERF).samples_to_0925.isna().sum() == 1
