"""Units of a metric, spelled NaN, the ends of the noise, odd files and values, and what the pages call serious."""

import decimal
import json
import math
import re

import pytest
import scipy.stats

from test_audit_reading import HEAD, peft_result, problems, read, table
from welltuned.audit import Request, audit, files, markdown, noise, webpage

# Per cent, shares, counts, scores ------------------------------------------------------------------------------------


def values(found) -> list[float]:
    return [entry.run.value for entry in found.judging.entries]


def test_cells_with_and_without_a_per_cent_sign_may_not_mean_two_units(tmp_path):
    text = "method,accuracy\nlora,61.2%\nlora,62%\npissa,0.640\npissa,0.65\n"
    found = problems(table(tmp_path, text))
    assert "column accuracy: got '0.64 in line 4, 0.65 in line 5, beside cells with a % sign (line 2)'" in found
    assert "expected one unit; write all of them in per cent, each with a % sign, or all as shares from 0 to 1" in found
    fine = read(table(tmp_path, "method,accuracy\nlora,61.2%\npissa,64\npissa,0.5 %\npissa,0\n"))
    assert values(fine) == [61.2, 64, 0.5, 0] and fine.judging.percent


def test_bare_shares_beside_bare_per_cent_are_refused(tmp_path):
    found = problems(table(tmp_path, "method,accuracy\nlora,61.2\nlora,60\npissa,0.640\n"))
    assert "got '0.64 in line 4, beside cells like 61.2 (line 2)', expected one unit" in found
    assert "got '61 in line 2, beside cells like 0.6 (line 3)'" in problems(
        table(tmp_path, "method,accuracy\nlora,61\nlora,0.6\npissa,0.640\n")
    )


def test_a_score_with_a_number_of_items_is_no_share_and_it_is_said(tmp_path):
    text = "method,lr,n_test,score\nlora,1e-4,80,6.1\nlora,2e-4,80,6.3\npissa,1e-4,80,6.8\n"
    found = audit(table(tmp_path, text), Request(higher_is_better=True))
    assert not found.book.judging.is_share and found.conclusions[0].noise.items is None
    assert "score is not called a share of items, each right or wrong" in found.book.notes[0]
    assert found.book.notes[0].endswith("if it is one, call it accuracy.")


@pytest.mark.parametrize(
    ("name", "is_share"),
    [("accuracy", True), ("gsm8k exact match", True), ("pass@1", True), ("mean_token_accuracy", False), ("f1", False)],
)
def test_items_make_noise_for_shares_of_items_only(tmp_path, name, is_share):
    text = f"method,n_items,{name}\nlora,1000,0.5\npissa,1000,0.6\n"
    (one,) = audit(table(tmp_path, text)).conclusions
    assert (one.noise.items is not None) == is_share
    if is_share:
        assert one.noise.items == pytest.approx(math.sqrt(0.25 / 1000 + 0.24 / 1000))


def test_counts_of_right_items_are_divided_by_the_items(tmp_path):
    text = "method,num_correct,n_test\nlora,82 ± 1.64,164\npissa,41,164\n"
    found = read(table(tmp_path, text))
    assert values(found) == [0.5, 0.25] and found.judging.is_share and not found.judging.percent
    assert found.judging.entries[0].run.sd == pytest.approx(0.01)
    assert "num_correct counts the items that are right: divided by their number." in found.notes
    bare = read(table(tmp_path, "method,num_correct\nlora,82\npissa,41\n"))
    assert values(bare) == [82, 41] and not bare.judging.is_share
    assert "--value num_items=N makes it a share" in bare.notes[0]
    more = problems(table(tmp_path, "method,num_correct,n_test\nlora,200,164\n"))
    assert "column num_correct: got '200 in line 2', expected no more items right than there are; correct" in more


# NaN and infinity ----------------------------------------------------------------------------------------------------


def test_a_spelled_nan_of_a_loss_is_a_run_that_diverged_and_its_rate_was_tried(tmp_path):
    losses = "lora,1e-4,1.2\nlora,2e-4,1.1\nlora,4e-4,{}\npissa,1e-4,1.0\n"
    found = audit(table(tmp_path, "method,lr,loss\n" + losses.format("NaN")))
    row = next(row for row in found.tuned if row.method == "lora")
    assert (row.knob("learning_rate").count, row.knob("learning_rate").edge, row.num_diverged) == (3, "", 1)
    assert "NaN where lower is better is a run that diverged: line 4." in found.book.notes
    empty = audit(table(tmp_path, "method,lr,loss\n" + losses.format("")))
    row = next(row for row in empty.tuned if row.method == "lora")
    assert row.knob("learning_rate").count == 2 and [one.place for one in empty.book.unscored] == ["line 4"]
    accuracy = audit(table(tmp_path, "method,lr,accuracy\nlora,1e-4,0.5\nlora,2e-4,nan\n"))  # may be ungraded
    assert [one.place for one in accuracy.book.unscored] == ["line 3"]


def test_a_nan_of_json_is_one_too(tmp_path):
    rows = [{"method": "lora", "lr": 1e-4, "loss": 1.0}, {"method": "lora", "lr": 2e-4, "loss": math.nan}]
    found = read(table(tmp_path, json.dumps(rows), "t.json"))
    assert [entry.run.diverged for entry in found.judging.entries] == [False, True]


def test_a_number_whose_square_is_none_is_as_good_as_infinite(tmp_path):
    text = "method,lr,seed,ppl\nlora,1e-4,0,8.1\nlora,1e-4,1,1e200\npissa,1e-4,0,8.2\npissa,1e-4,1,8.4\n"
    found = audit(table(tmp_path, text))
    assert next(row for row in found.tuned if row.method == "lora").num_diverged == 1
    assert next(row for row in found.tuned if row.method == "lora").headline.value == pytest.approx((8.1 + 8.4) / 2)


def test_a_spread_in_per_cent_beside_a_share_is_refused(tmp_path):
    found = problems(table(tmp_path, "method,n_seeds,accuracy,std\nlora,3,0.61,0.4%\n"))
    assert (
        "column std: got '0.4%' in line 2, expected a number in the metric's unit, which is not per cent here" in found
    )
    assert read(table(tmp_path, "method,n_seeds,accuracy,std\nlora,3,61,0.4%\n")).judging.entries[0].run.sd == 0.4


def test_a_loss_that_is_almost_0_is_no_traceback(tmp_path):
    rows = "".join(f"{name},{rate},{seed},{loss}\n" for name in ("lora", "pissa") for seed in (0, 1)
                   for rate, loss in ((1e-4, "1e-300"), (2e-4, 1 + seed), (4e-4, 2)))  # fmt: skip
    assert audit(table(tmp_path, "method,lr,seed,loss\n" + rows)).tuned[0].headline.value == 1e-300


@pytest.mark.parametrize("cells", ["61,inf", "61,1e200", "61 ± inf,"])
def test_an_infinite_spread_is_named_with_its_line_and_no_folder_is_made(tmp_path, cells):
    path = table(tmp_path, f"method,n_seeds,accuracy,std\nlora,3,{cells}\npissa,3,62,0.3\n")
    assert re.search(r"got '.*(inf|1e200)' in line 2, expected a number >= 0 and not infinite", problems(path))


def test_what_cannot_be_written_makes_no_folder(tmp_path, monkeypatch):
    found = audit(table(tmp_path, "method,accuracy\nlora,61\npissa,62\n"))
    monkeypatch.setattr(files, "as_json", lambda audit: {"value": math.nan})
    with pytest.raises(ValueError, match="JSON"):
        files.write(found, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# The two ends of the noise -------------------------------------------------------------------------------------------

BY_SEED = "method,seed,n_test,accuracy\n" + "".join(
    f"{name},{seed},1319,{value + added}\n"
    for name, value in (("lora", 50.0), ("pissa", 51.5))
    for seed, added in ((0, -0.3), (1, 0.0), (2, 0.3 if name == "lora" else 0.32))
)


def test_each_end_of_the_noise_has_its_own_degrees_of_freedom(tmp_path):
    """Low is the noise of the items here, which two degrees of freedom of seeds do not make less certain."""
    (one,) = audit(table(tmp_path, BY_SEED)).conclusions
    found = one.noise
    assert found.seeds < found.low and found.low_degrees == math.inf
    assert found.high_degrees == pytest.approx(2 * (1 + (found.items / found.seeds) ** 2) ** 2)
    assert (
        2 * scipy.stats.norm.sf(one.difference / found.low) < 0.05 < 2 * scipy.stats.t.sf(one.difference / found.low, 2)
    )
    assert "within the noise" not in one.reasons


def test_where_seeds_are_the_larger_part_low_has_their_degrees_of_freedom(tmp_path):
    text = BY_SEED.replace("1319", "10000000")
    (one,) = audit(table(tmp_path, text)).conclusions
    assert one.noise.low == one.noise.seeds and one.noise.low_degrees == 2
    assert noise.satterthwaite(0.1, 2, 0.0) == 2


# Files ---------------------------------------------------------------------------------------------------------------


def test_parquet_decimals_are_numbers(tmp_path):
    import pyarrow
    import pyarrow.parquet

    cells = {"method": ["lora", "pissa"], "accuracy": [decimal.Decimal("61.2"), decimal.Decimal("62.3")]}
    pyarrow.parquet.write_table(pyarrow.table(cells), tmp_path / "t.parquet")
    assert values(read(tmp_path / "t.parquet")) == [61.2, 62.3]


def test_a_peft_result_of_a_run_that_failed_early_is_a_row_without_a_number(tmp_path):
    failed = {
        "run_info": {"train_config": {"optimizer_kwargs": None}, "peft_config": None},
        "train_info": {"status": "failed", "metrics": None},
    }
    (tmp_path / "a.json").write_text(json.dumps(failed))
    (tmp_path / "b.json").write_text(json.dumps(peft_result("lora/b", 0.5)))
    found = read(tmp_path)
    assert [(row.place, row.why) for row in found.unscored] == [("a.json", "no number, status 'failed'")]
    (tmp_path / "a.json").write_text(json.dumps({"run_info": None, "train_info": []}))
    assert "a.json: got 'another kind of JSON', expected a result file of PEFT's" in problems(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        '"method, variant";"lr";"accuracy, test, 5-shot, greedy"\nlora;1e-4;61\n',
        "sep=;\r\nmethod, variant;lr;accuracy, test, 5-shot, greedy\r\nlora;1e-4;61\r\n",
    ],
)
def test_signs_in_a_header_s_quotes_separate_nothing_and_excel_says_its_own(tmp_path, text):
    path = table(tmp_path, text)
    found = read(path, columns={"method": ("method, variant",), "metric": ("accuracy, test, 5-shot, greedy",)})
    (entry,) = found.judging.entries
    assert (entry.run.method, entry.run.learning_rate, entry.run.value) == ("lora", 1e-4, 61)
    assert entry.place == f"line {len(text.splitlines())}"


def test_endings_in_capitals_are_read(tmp_path):
    assert values(read(table(tmp_path, HEAD + "lora,1e-4,16,8,0,0.5\n", "TABLE.CSV"))) == [0.5]


def test_decimal_commas_are_named_with_what_to_write(tmp_path):
    found = problems(table(tmp_path, "method;lr;accuracy\nlora;0,0001;61,2\n"))
    commas = "with a decimal point and without commas ('61.2', not '61,2') in every row; correct the table"
    assert f"column accuracy: got '61,2' in line 2, expected a number, {commas}" in found
    assert f"column lr: got '0,0001' in line 2, expected a number > 0, {commas}" in found


def test_a_method_called_none_is_named(tmp_path):
    found = problems(table(tmp_path, "method,accuracy\nnone,61\n"))
    assert "column method: got 'none' in line 2, expected a name that does not mean 'nothing' ('no adapter'" in found


# Pages ---------------------------------------------------------------------------------------------------------------


def test_the_pages_say_in_words_which_findings_are_serious_and_say_these_first(tmp_path):
    found = audit(table(tmp_path, "method,lr,accuracy\nlora,1e-4,0.5\nlora,2e-4,0.6\npissa,1e-4,0.5\npissa,2e-4,0.7\n"
                        "pissa,4e-4,0.1\nlora,4e-4,0.5\nlora,4e-4,0.4\n"))  # fmt: skip
    web, plain = webpage.page(found), markdown.page(found)
    assert "<b>serious: selection</b>" in web and "- **serious: selection**: " in plain
    kinds = re.findall(r"^- (\*\*serious: \w[\w ]*\*\*|\w[\w ]*): ", plain, re.MULTILINE)
    serious = [kind.startswith("**serious") for kind in kinds]
    assert serious == sorted(serious, reverse=True) and len(set(serious)) == 2
