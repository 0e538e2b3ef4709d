"""Reading anybody's table: cells, columns, diverged rows, and every message about an input that cannot be read."""

import gzip
import json
from pathlib import Path

import pytest

import synthetic
from welltuned.audit import book, columns, parsing, sources, studies
from welltuned.audit.assemble import read as read_book
from welltuned.audit.records import Request
from welltuned.errors import InputError

HEAD = "method,lr,batch_size,rank,seed,test_accuracy\n"


def table(tmp_path: Path, text: str, name: str = "table.csv") -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def read(path: Path, **request):
    return read_book(path, Request(**request))


def problems(path: Path, **request) -> str:
    with pytest.raises(InputError) as caught:
        read(path, **request)
    return str(caught.value)


# Cells ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cell", "value", "sd", "percent"),
    [
        ("73.1", 73.1, None, False),
        ("73.1 ± 0.4", 73.1, 0.4, False),
        ("73.1±.4", 73.1, 0.4, False),
        ("73.1 +/- 0.4", 73.1, 0.4, False),
        ("73.1 +- 0.4", 73.1, 0.4, False),
        (r"$73.1 \pm 0.4$", 73.1, 0.4, False),
        ("**73.1** (0.4)", 73.1, 0.4, False),
        ("73.1 %", 73.1, None, True),
        (r"73.1\%", 73.1, None, True),
        ("73.1 ± 0.4 %", 73.1, 0.4, True),
        ("−1.5e-3", -0.0015, None, False),
        (2, 2.0, None, False),
    ],
)
def test_numbers_are_read_as_people_write_them(cell, value, sd, percent):
    assert parsing.number(cell) == parsing.Reading(value, sd, percent)


@pytest.mark.parametrize("cell", ["about 3", "1,319", "lora", "3 4", "", True, None])
def test_text_is_never_a_number(cell):
    assert parsing.number(cell) is None


# Columns --------------------------------------------------------------------------------------------------------------


def test_usual_names_are_found_and_said():
    assert columns.role_of("opt_base_learning_rate") == "learning_rate"
    assert columns.role_of("Global Batch-Size") == "batch_size"
    assert columns.role_of("std") == "sd"


def test_the_test_metric_is_meant_where_there_are_several(tmp_path):
    path = table(tmp_path, "method,train_loss,valid_accuracy,test_accuracy\nlora,1.0,0.4,0.5\n")
    assert read(path).judging.metric == "test_accuracy"
    assert read(path, columns={"metric": ("train_loss",)}).judging.higher_is_better is False


def test_a_value_for_every_row_stands_in_for_a_column(tmp_path):
    found = read(table(tmp_path, "lr,test_nll\n1e-3,0.5\n"), values={"method": "lora", "n_items": "200"})
    (entry,) = found.judging.entries
    assert (entry.run.method, entry.run.num_items, entry.run.learning_rate) == ("lora", 200, 1e-3)


def test_a_spread_beside_its_metric_is_found(tmp_path):
    found = read(table(tmp_path, "method,test_accuracy,test_accuracy_std,n_seeds\nlora,0.5,0.01,3\n"))
    assert (found.judging.entries[0].run.sd, found.judging.entries[0].run.num_seeds) == (0.01, 3)


def test_a_method_may_be_named_by_several_columns(tmp_path):
    path = table(tmp_path, "peft_type,use_dora,accuracy\nLORA,True,0.5\nLORA,False,0.4\n")
    found = read(path, columns={"method": ("peft_type", "use_dora")})
    assert [entry.run.method for entry in found.judging.entries] == ["LORA+use_dora", "LORA"]


def test_per_cent_and_shares_are_told_apart(tmp_path):
    assert read(table(tmp_path, "method,accuracy\nlora,73.1 ± 0.4\n")).judging.percent
    assert not read(table(tmp_path, "method,accuracy\nlora,0.731\n")).judging.percent
    assert not read(table(tmp_path, "method,rouge1\nlora,36.1\n")).judging.is_share


# Kinds of files -------------------------------------------------------------------------------------------------------

ROWS = [{"method": "lora", "lr": 1e-3, "loss": 0.5}, {"method": "pissa", "lr": 1e-3, "loss": 0.4}]


def test_every_kind_of_file_gives_the_same_runs(tmp_path):
    import pandas

    pandas.DataFrame(ROWS).to_parquet(tmp_path / "t.parquet")
    paths = [
        tmp_path / "t.parquet",
        table(tmp_path, "method,lr,loss\nlora,1e-3,0.5\npissa,1e-3,0.4\n", "t.csv"),
        table(tmp_path, "method;lr;loss\r\nlora;1e-3;0.5\r\npissa;1e-3;0.4\r\n", "semicolon.csv"),
        table(tmp_path, "\ufeffmethod\tlr\tloss\nlora\t1e-3\t0.5\n\npissa\t1e-3\t0.4\n", "t.tsv"),
        table(tmp_path, json.dumps(ROWS), "t.json"),
        table(tmp_path, "".join(json.dumps(row) + "\n" for row in ROWS), "t.jsonl"),
    ]
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(paths[1].read_bytes()))
    tables = [read(path).judging.table for path in [*paths, tmp_path / "t.csv.gz"]]
    assert all(found == tables[0] for found in tables)
    assert [run.value for run in tables[0].runs] == [0.5, 0.4]


def peft_result(name: str, accuracy: float | None, **peft) -> dict:
    metrics = [{"valid accuracy": 0.4}] + ([{"test accuracy": accuracy}] if accuracy is not None else [])
    training = {"model_id": "base", "batch_size": 4, "seed": 0, "optimizer_kwargs": {"lr": 1e-4}}
    config = {"peft_type": "LORA", "r": 32, "target_modules": ["q_proj"], **peft}
    return {
        "run_info": {"experiment_name": name, "train_config": training, "peft_config": config},
        "train_info": {"status": "success", "metrics": metrics},
    }


def test_a_folder_of_pefts_results_names_variants_apart(tmp_path):
    for number, peft in enumerate(({}, {"use_dora": True}, {"init_lora_weights": "pissa"})):
        (tmp_path / f"{number}.json").write_text(json.dumps(peft_result(f"lora/{number}", 0.5, **peft)))
    found = read(tmp_path)
    assert [entry.run.method for entry in found.judging.entries] == ["lora", "lora+dora", "lora+pissa"]
    assert {entry.run.rank for entry in found.judging.entries} == {32}
    assert {entry.run.learning_rate for entry in found.judging.entries} == {1e-4}


def test_a_study_is_judged_by_its_reruns_and_chosen_by_its_selection():
    results, _ = synthetic.study()
    found = studies.of_study("study", results, "validation_nll")
    assert found.fresh
    assert all(entry.run.selected for entry in found.choosing.entries)
    assert not any(entry.run.selected for entry in found.judging.entries)
    assert studies.of_study("study", results, "test_accuracy").judging.is_share


def test_validation_rows_choose_and_test_rows_judge(tmp_path):
    text = "method,lr,split,accuracy\nlora,1e-3,val,0.6\nlora,1e-2,val,0.5\nlora,1e-3,test,0.3\nlora,1e-2,test,0.4\n"
    found = read(table(tmp_path, text))
    assert found.fresh
    assert [entry.run.value for entry in found.choosing.entries] == [0.6, 0.5]
    assert [entry.run.value for entry in found.judging.entries] == [0.3, 0.4]


# Diverged and missing -------------------------------------------------------------------------------------------------


def test_diverged_rows_count_with_the_worst_of_their_problem(tmp_path):
    text = "method,model,lr,loss,diverged\nlora,a,1e-3,0.5,0\nlora,a,1e-2,0.7,0\nlora,a,1e-1,,1\nlora,b,1e-3,0.9,0\n"
    runs = read(table(tmp_path, text)).judging.table.runs
    assert [(run.value, run.diverged) for run in runs] == [(0.5, False), (0.7, False), (0.9, False), (0.7, True)]


def test_an_infinite_loss_and_a_status_are_divergence(tmp_path):
    text = "method,lr,loss,status\nlora,1e-3,0.5,success\nlora,1e-2,inf,success\nlora,1e-1,,diverged at step 3\n"
    assert [run.diverged for run in read(table(tmp_path, text)).judging.table.runs] == [False, True, True]


def test_a_diverged_accuracy_counts_as_no_item_right(tmp_path):
    text = "method,lr,accuracy,diverged\nlora,1e-3,0.5,false\nlora,1e-1,,true\n"
    assert [run.value for run in read(table(tmp_path, text)).judging.table.runs] == [0.5, 0.0]


def test_a_count_of_diverged_runs_is_spread_over_what_did_not_finish(tmp_path):
    text = 'method,lr,rank,loss,diverged\nlora,1e-3,4,0.5,0\nlora,"1e-3, 3e-3","1, 4",,3\n'
    runs = [run for run in read(table(tmp_path, text)).judging.table.runs if run.diverged]
    assert {(run.learning_rate, run.rank) for run in runs} == {(1e-3, 1), (3e-3, 1), (3e-3, 4)}


def test_cells_without_a_number_are_counted_and_named(tmp_path):
    text = "method,loss,status\nlora,0.5,success\nlora,n/a,success\npissa,,cancelled\n"
    unscored = read(table(tmp_path, text)).unscored
    assert [(row.place, row.method, row.why) for row in unscored] == [
        ("line 3", "lora", "no number, status 'success'"),
        ("line 4", "pissa", "no number, status 'cancelled'"),
    ]


# Errors ---------------------------------------------------------------------------------------------------------------

WRONG = [
    (HEAD, {}, "got 'an empty table', expected at least one row"),
    ("", {}, "got 'an empty table'"),
    ("method,lr\nlora,1e-3\n", {}, "metric: got no column of a usual name among method, lr, expected one; write"),
    ("lr,loss\n1e-3,0.5\n", {}, "method: got no column of a usual name among lr, loss, expected one; write --column"),
    ("method,gsm8k_acc,math_acc\nlora,1,2\n", {}, "metric: got 2 columns that may be meant (gsm8k_acc, math_acc)"),
    ("method,lr,learning_rate,loss\nlora,1,1,1\n", {}, "learning_rate: got 2 columns that may be meant (lr, learn"),
    ("method,score\nlora,1\n", {}, "metric: got 'score', expected a metric whose name says which way is better; add"),
    ("method,loss\nlora,about 1\n", {}, "column loss: got 'about 1' in line 2, expected a number in every row"),
    ("method,lr,loss\nlora,high,1\n", {}, "column lr: got 'high' in line 2, expected a number > 0 in every row"),
    ("method,lr,loss\nlora,0,1\n", {}, "column lr: got '0' in line 2, expected a number > 0"),
    ("method,rank,loss\nlora,2.5,1\n", {}, "column rank: got '2.5' in line 2, expected a whole number >= 0"),
    ('method,rank,loss\nlora,"1, 4",1\n', {}, "column rank: got '1, 4' in line 2, expected a whole number"),
    ("method,loss,diverged\nlora,1,maybe\n", {}, "column diverged: got 'maybe' in line 2, expected true, false or a"),
    ("method,loss,std\nlora,1,-1\n", {}, "column std: got '-1' in line 2, expected a number >= 0"),
    ("method,loss,std\nlora,1 ± 0.1,0.2\n", {}, "expected nothing, since the metric's cell has a ± of its own"),
    ("method,loss,n_seeds\nlora,1,0\n", {}, "column n_seeds: got '0' in line 2, expected a whole number >= 1"),
    ("method,loss\n,1\n", {}, "column method: got None in line 2, expected a name in every row"),
    ("method,loss\nlora,\n", {}, "got 'no number in any of 1 row', expected at least one"),
    (
        "method,accuracy\nlora,50\npissa,150\n",
        {},
        "got '150 in line 3', expected shares of items, from 0 to 1 or from 0 to 100",
    ),
    ("method,loss\nlora,1,2\n", {}, "got 'rows of another length: line 2 (3)', expected 2 cells in each"),
    (
        f'method,loss\n"lora,1\n{"x" * 200_000}',
        {},
        "got 'field larger than field limit (131072) in the row after line 1', expected a table of short cells",
    ),
    ("method,loss,loss\nlora,1,2\n", {}, "got \"column 'loss' twice\", expected every name once"),
    ("method,loss\nlora,1\n", {"columns": {"lr": ("eta",)}}, "--column learning_rate=eta: got no column 'eta'"),
    ("method,loss\nlora,1\n", {"columns": {"speed": ("loss",)}}, "role: got 'speed', expected one that a column"),
    (
        "method,loss,a\nlora,1,1\n",
        {"columns": {"lr": ("loss", "a")}},
        "--column learning_rate: got 'loss, a', expected",
    ),
    ("method,loss\nlora,1\n", {"values": {"status": "ok"}}, "--value: got 'status', expected a role that can be the"),
    (
        "method,lr,loss\nlora,1,1\n",
        {"values": {"lr": "1"}, "columns": {"lr": ("lr",)}},
        "learning_rate: got 'a column and a value', expected one of them",
    ),
]


@pytest.mark.parametrize(("text", "request_", "message"), WRONG, ids=[message[:48] for _, _, message in WRONG])
def test_every_wrong_table_is_named_with_what_to_do(tmp_path, text, request_, message):
    assert message in problems(table(tmp_path, text), **request_)


def test_rows_with_text_are_named_up_to_five(tmp_path):
    text = "method,loss\n" + "".join(f"lora,x{n}\n" for n in range(7))
    found = problems(table(tmp_path, text))
    assert "'x0' in line 2, 'x1' in line 3" in found and "'x4' in line 6 and 2 more" in found


def test_paths_that_hold_no_table(tmp_path):
    assert "expected a file (.csv" in problems(tmp_path / "nope.csv")
    assert "expected a file that ends in .csv" in problems(table(tmp_path, "x", "table.xlsx"))
    assert "no JSON" in problems(table(tmp_path, "{", "t.json"))
    assert "something else than an object in line 1" in problems(table(tmp_path, "3\n", "t.jsonl"))
    assert "a nested value ('a') in row 1" in problems(table(tmp_path, '[{"a": [1]}]', "n.json"))
    (tmp_path / "latin.csv").write_bytes("méthode,loss\n".encode("latin-1"))
    assert "expected text in UTF-8" in problems(tmp_path / "latin.csv")
    (tmp_path / "bad.parquet").write_bytes(b"no parquet")
    assert "expected a Parquet file" in problems(tmp_path / "bad.parquet")


def test_folders_that_hold_no_results(tmp_path):
    assert "expected a study's folder (with study.db), or JSON files of PEFT's" in problems(tmp_path)
    (tmp_path / "other.json").write_text("{}")
    assert "other.json: got 'another kind of JSON', expected a result file of PEFT's" in problems(tmp_path)
    (tmp_path / "other.json").write_text("{")
    assert "no JSON" in problems(tmp_path)


def test_a_study_knows_its_own_columns(tmp_path):
    recorded = Path(__file__).parent / "recorded" / "batch_by_method.jsonl.gz"
    assert "expected none, since a study knows its own; leave it out" in problems(recorded, columns={"lr": ("x",)})
    assert "got 'bleu', expected validation_nll or test_accuracy" in problems(recorded, columns={"metric": ("bleu",)})


def test_reading_interprets_nothing(tmp_path):
    sheet = sources.read(table(tmp_path, "method,loss\nlora,1\n"))
    assert sheet.rows == ({"method": "lora", "loss": "1"},) and sheet.places == ("line 2",)
    assert book.book(sheet, columns.recognise(sheet, Request()), Request()).notes == ()
