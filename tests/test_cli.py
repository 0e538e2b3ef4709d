"""The command line, with the fake worker in place of the one that trains."""

import doctest
import functools
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tomllib

import pandas
import pytest

import synthetic
from welltuned import cli, report, study
from welltuned.cli import _options, _results, _rows, init, tune
from welltuned.errors import InputError
from welltuned.records import Status
from welltuned.spec import Spec, field_rows
from welltuned.study import speed, tune_spec

ROOT = pathlib.Path(__file__).parents[1]
STUDY = """
name = "tiny"
[model]
base = "abacus-small"
[task]
task = "abacus"
num_train = 64
num_validation = 8
num_test = 8
[train]
rank = 4
[axes]
method = ["lora", "pissa"]
batch_size = [4, 16]
learning_rate = [1e-3, 1e-2, 0.9]
[search]
fresh_seeds = 2
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Stand in an empty folder with a study file, and train with the fake worker."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.toml").write_text(STUDY)
    monkeypatch.setattr(study, "Options", functools.partial(study.Options, entry="fake_worker:run"))
    monkeypatch.setattr(speed, "MOST_SECONDS", 900.0)  # the machine that tests may be busy
    return tmp_path


@pytest.fixture
def quick_report(monkeypatch):
    """Build no figures: they take seconds, and tests/test_report.py looks at them."""

    def build(results, declaration, folder):
        folder.mkdir(exist_ok=True)
        (folder / "report.html").write_text(f"{len(results)} results of {declaration.name}")
        return folder / "report.html"

    monkeypatch.setattr(report, "build", build)


def call(*arguments: str) -> int:
    """Run the command line in this process and return its exit status."""
    try:
        cli.main(arguments)
    except SystemExit as done:
        return int(done.code or 0)
    return 0


def flags(verb: str) -> set[str]:
    import typer

    command = typer.main.get_command(cli._app(verb))
    return {name for parameter in command.commands[verb].params for name in parameter.opts if name.startswith("-")}


def output(capsys) -> str:
    captured = capsys.readouterr()
    assert captured.err == "" or "Traceback" not in captured.err
    return captured.out


# The verbs ------------------------------------------------------------------------------------------------------------


def test_help_lists_every_verb_and_every_verb_has_a_file(capsys):
    assert call("--help") == 0
    shown = output(capsys)
    assert all(re.search(rf"\b{verb}\b", shown) for verb in cli.VERBS)
    files = {path.stem for path in (ROOT / "src/welltuned/cli").glob("[!_]*.py")}
    assert files == set(cli.VERBS)


@pytest.mark.parametrize("verb", cli.VERBS)
def test_a_verb_explains_itself(verb, capsys):
    assert call(verb, "--help") == 0
    assert f"welltuned {verb}" in output(capsys)


def test_only_the_verb_that_is_called_is_imported():
    code = "import sys, welltuned.cli as c\ntry:\n    c.main(['report', '--help'])\nexcept SystemExit:\n    pass\n"
    code += "print(sorted(name for name in sys.modules if name.startswith('welltuned.cli.')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment())
    assert done.stdout.splitlines()[-1] == "['welltuned.cli._options', 'welltuned.cli.report']"


def test_an_unknown_verb_is_refused_with_a_suggestion(capsys):
    assert call("rum") == 2
    assert "Did you mean 'run'?" in capsys.readouterr().err


def test_version(capsys):
    assert call("--version") == 0
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert output(capsys).strip() in (declared, "unknown: welltuned is run from its sources without being installed")


def test_flags_say_where_and_how_much_and_never_what():
    """A ratchet: a new flag must be added here, and a hyperparameter must not."""
    where = {"--folder", "--device", "--threads", "--memory", "--to", "--json", "--trials", "--yes"}
    where |= {"--merged", "--force", "--once", "--watch", "--oracle"}  # the last: how far, and only after the verdict
    written_to_a_file = {"--model", "--task", "--data"}  # of `init`
    looked_at = {"--model", "--method"}  # of `doctor`
    where |= {"--samples", "--blocks", "--steps"}  # how much `curvature` looks at
    where |= {"--column", "--value", "--baseline", "--higher-is-better", "--lower-is-better"}  # how `audit` reads
    where |= {"--settings"}  # what `export` writes
    # `advise` is a calculator, and what `tune` is told it writes to a file (design, D5).
    verbs = [verb for verb in cli.VERBS if verb not in ("advise", "tune")]
    assert set().union(*(flags(verb) for verb in verbs)) - {"--help"} <= where | written_to_a_file | looked_at
    others = set().union(*(flags(verb) for verb in verbs if verb not in ("init", "doctor")))
    assert not (written_to_a_file | looked_at) & others


# Errors ---------------------------------------------------------------------------------------------------------------


def test_every_problem_is_a_line_on_stderr_and_the_exit_status_is_2(here, capsys):
    (here / "bad.toml").write_text(STUDY.replace("rank = 4", "rank = 0\nlerning_rate = 1e-3"))
    assert call("run", "bad.toml") == 2
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert captured.out == ""
    assert len(lines) == 2 and all(line.startswith("error: train.") for line in lines)
    assert any("learning_rate" in line for line in lines) and any("rank: got 0" in line for line in lines)
    assert not (here / "runs").exists()


def test_a_missing_file_is_one_line(here, capsys):
    assert call("plan", "nope.toml") == 2
    line = capsys.readouterr().err
    assert (
        line
        == "error: study file: got 'nope.toml', expected an existing TOML file; check the path, or make one: "
        + ("welltuned init\n")
    )


def test_a_missing_study_is_one_line(here, capsys):
    assert call("show", "runs/nope") == 2
    assert capsys.readouterr().err.startswith("error: study folder: got 'runs/nope', expected")


@pytest.mark.parametrize("text", ["much", "-1GB", "0", "1 2", "", "1e9"])
def test_memory_that_is_no_number_of_bytes_is_refused(text, here, capsys):
    assert call("plan", "tiny.toml", "--memory", text) == 2
    expected = f'error: --memory: got {text!r}, expected a number of bytes as in "12GB"; write --memory 12GB\n'
    assert capsys.readouterr().err == expected


def test_bytes_are_read():
    assert _options.parse_bytes("2.5 GB") == 2_500_000_000


# init -----------------------------------------------------------------------------------------------------------------


def test_init_writes_a_file_that_loads_and_names_every_setting(here, capsys):
    assert call("init") == 0
    assert "wrote study.toml" in output(capsys)
    text = (here / "study.toml").read_text()
    spec = Spec.load(here / "study.toml")
    assert spec.method_names() == ("lora", "pissa", "milora")
    for _, field, _, meaning in field_rows():
        assert re.search(rf"^(# )?{field}( =|:)", text, re.MULTILINE), field
        assert meaning in text


def test_the_defaults_that_init_comments_on_are_the_defaults(here):
    assert call("init") == 0
    text = (here / "study.toml").read_text()
    uncommented = re.sub(r"^# (\w+ = )", r"\1", text, flags=re.MULTILINE)
    assert uncommented.count("\n#") < text.count("\n#") - 20
    assert Spec.parse(uncommented).hash() == Spec.parse(text).hash()


@pytest.mark.parametrize("model", ["abacus-small", "org/some-model"])
def test_the_methods_of_inits_study_have_as_many_learning_rates(model):
    text = init.study_text(pathlib.Path("study.toml"), model, "abacus", ())
    tried: dict[str, set[float]] = {}
    for settings in Spec.parse(text).combinations():
        tried.setdefault(settings["method"], set()).add(settings["learning_rate"])
    assert tried["lora"] != tried["pissa"]
    assert len({len(rates) for rates in tried.values()}) == 1


def test_examples_of_splits():
    assert doctest.testmod(_rows).failed == 0


def test_init_does_not_overwrite(here, capsys):
    assert call("init", "tiny.toml") == 2
    assert capsys.readouterr().err == (
        "error: study file: got 'tiny.toml', expected a file that does not exist yet; name another one, or say --yes\n"
    )
    assert (here / "tiny.toml").read_text() == STUDY
    assert call("init", "tiny.toml", "--yes") == 0
    assert (here / "tiny.toml").read_text() != STUDY


def test_init_reports_what_is_wrong_and_writes_nothing(here, capsys):
    assert call("init", "--model", "abacus-smal", "--task", "gsm8", "--data", "nope.jsonl") == 2
    error = capsys.readouterr().err
    assert "did you mean 'gsm8k'?" in error and "did you mean 'abacus-small'?" in error and "nope.jsonl" in error
    assert not (here / "study.toml").exists()


def test_init_fits_the_splits_to_the_rows_of_a_file(here, capsys):
    rows = [json.dumps({"prompt": f"{number} and {number}:", "completion": " so"}) for number in range(300)]
    (here / "rows.jsonl").write_text("\n".join(rows) + "\n\n")
    assert call("init", "--data", "rows.jsonl") == 0
    spec = Spec.load(here / "study.toml")
    assert (spec.task.task, spec.task.num_train, spec.task.num_validation, spec.task.num_test) == (
        "completion",
        238,  # and room for 2 that are dropped
        30,
        30,
    )


@pytest.mark.parametrize("name", ["rows.csv", "rows.json", "rows.jsonl.gz", "rows.parquet"])
def test_init_counts_the_rows_of_every_kind_of_file(name, here, capsys):
    write_rows(here / name, 70)
    assert call("init", "--data", name) == 0
    spec = Spec.load(here / "study.toml")
    assert (spec.task.num_train, spec.task.num_validation, spec.task.num_test) == (56, 7, 7)
    assert spec.axes["batch_size"] == (4, 16)  # 64 rows there are not


def write_rows(file: pathlib.Path, number: int) -> None:
    frame = pandas.DataFrame({"prompt": [f"{one} and so" for one in range(number)], "completion": [" on"] * number})
    if file.suffix == ".parquet":
        frame.to_parquet(file)
    elif file.suffix == ".csv":
        frame.to_csv(file, index=False)
    else:
        frame.to_json(file, orient="records", lines=file.suffix == ".gz")


def test_init_refuses_a_file_with_too_few_rows_or_a_bad_one(here, capsys):
    write_rows(here / "rows.csv", 5)
    assert call("init", "--data", "rows.csv") == 2
    assert capsys.readouterr().err == (
        "error: --data: got '5 rows in all', expected at least 6; add rows, or name another file\n"
    )
    (here / "bad.jsonl").write_text("{")
    assert call("init", "--data", "bad.jsonl") == 2
    assert "bad.jsonl, line 1: malformed" in capsys.readouterr().err
    assert not (here / "study.toml").exists()


def test_a_folder_as_data_is_called_one(here, capsys):
    (here / "rows").mkdir()
    for verb in ("init", "tune"):
        assert call(verb, "--model", "abacus-small", "--data", "rows") == 2
        assert "that is a folder: name the files in it, one by one" in capsys.readouterr().err


def test_tune_has_a_budget_of_rows(here, capsys):
    """What is refused is named as the command has it, and test rows stay reserved."""
    write_rows(here / "rows.csv", 160)
    write_rows(here / "more.csv", 161)
    arguments = ("tune", "--model", "abacus-small", "--data")
    assert call(*arguments, "rows.csv") == 2
    assert capsys.readouterr().err.startswith(
        "error: --data: got '160 rows in all', expected at least 161, of which 128 are left to train; add rows"
    )
    assert call(*arguments, "more.csv", "--num-train", "130") == 2
    assert capsys.readouterr().err.startswith(
        "error: --num-train: got 130, expected at most 129: of the 161 rows of --data, 16 for validation and 16 that "
        "tuning never reads; lower it, or add rows"
    )
    asked = tune._request(a_request("more.csv"), None, 256, None)
    assert (asked.num_train, asked.num_validation, asked.num_test) == (128, 16, 16)


def a_request(data: str) -> tune_spec.Request:
    return tune_spec.Request("abacus-small", "", (data,), 0, 0, 0, tune_spec.Budget(runs=8.0))


def test_init_says_when_it_cannot_write(here, capsys):
    assert call("init", "no/such/folder/study.toml") == 2
    assert capsys.readouterr().err.startswith(
        "error: study file: got 'no/such/folder/study.toml', expected a place that can be written; choose another"
    )


# plan -----------------------------------------------------------------------------------------------------------------


def test_plan_shows_settings_arms_and_cost_and_trains_nothing(here, capsys):
    assert call("plan", "tiny.toml") == 0
    shown = output(capsys)
    assert re.search(r"train\.weight_decay +0\.0 +default", shown)
    assert re.search(r"train\.rank +4 +file", shown)
    assert re.search(r"lora +batch_size \(2\) x learning_rate \(3\) +6 +0 +2 +4 ", shown)
    assert "in all: 20 trials with reruns" in shown and "from a short measurement of this machine" in shown
    assert re.search(r"memory: about .*, for \d+ trials x \d+ rows? at a time: runtime ", shown)
    assert not (here / "runs").exists()


def test_plan_reads_the_speed_that_was_measured(here, capsys, quick_report):
    assert call("run", "tiny.toml") == 0
    capsys.readouterr()
    assert call("plan", "tiny.toml") == 0
    assert re.search(r"time: +about .* \(measured [\d,]+ tokens/s\)", output(capsys))


def test_plan_as_json(here, capsys):
    assert call("plan", "tiny.toml", "--json", "--memory", "4GB") == 0
    plan = json.loads(output(capsys))
    assert plan["name"] == "tiny" and plan["spec_hash"] == Spec.load("tiny.toml").hash()
    assert plan["cost"]["num_trials"] == 20 and plan["available_memory_bytes"] == 4_000_000_000
    assert plan["cost"]["memory_bytes"] == sum(plan["cost"]["memory"].values())


# run, show, report ----------------------------------------------------------------------------------------------------


def test_run_ends_with_a_table_and_a_report(here, capsys):
    assert call("run", "tiny.toml") == 0
    captured = capsys.readouterr()
    rows = [line for line in captured.out.splitlines() if re.match(r"[* ]  (lora|pissa), batch ", line)]
    assert len(rows) == 4 and sum(row.startswith("*") for row in rows) == 2
    assert captured.out.splitlines()[-1] == "report: runs/tiny/report/report.html"
    assert (here / "runs/tiny/report/report.html").is_file()
    lines = captured.err.splitlines()
    assert all(re.match(r"\d\d:\d\d:\d\d ", line) for line in lines)
    assert lines[1].endswith("tiny: 12 trials and 8 reruns on fresh seeds")


def test_running_again_trains_nothing_again(here, capsys, quick_report):
    assert call("run", "tiny.toml") == 0
    first = capsys.readouterr()
    assert call("run", "tiny.toml") == 0
    second = capsys.readouterr()
    assert second.out == first.out
    assert "going on: 20 trials are done already" in second.err and "training" not in second.err


def test_a_folder_of_another_study_is_refused(here, capsys, quick_report):
    assert call("run", "tiny.toml", "--folder", "mine") == 0
    (here / "tiny.toml").write_text(STUDY.replace("rank = 4", "rank = 2"))
    capsys.readouterr()
    assert call("run", "tiny.toml", "--folder", "mine") == 2
    assert capsys.readouterr().err.startswith("error: study folder mine: ")


def test_show_and_report_as_text_and_json(here, capsys, quick_report):
    assert call("run", "tiny.toml") == 0
    capsys.readouterr()
    assert call("show", "runs/tiny", "--trials") == 0
    shown = output(capsys)
    assert shown.startswith("tiny in runs/tiny\n20 of 20 trials known so far have ended: 16 finished, 4 diverged")
    assert len(re.findall(r"^[0-9a-f]{16}  ", shown, re.MULTILINE)) == 20
    assert call("show", "runs/tiny") == 0
    assert output(capsys).endswith("every trial with its id: welltuned show runs/tiny --trials\n")
    assert call("show", "runs/tiny", "--json") == 0
    state = json.loads(output(capsys))
    assert state["counts"]["num_finished"] == 16 and len(state["trials"]) == 20
    assert call("report", "runs/tiny") == 0
    assert output(capsys) == "look at runs/tiny/report/report.html\n"
    assert call("report", "runs/tiny", "--json") == 0
    assert json.loads(output(capsys)) == {"report": "runs/tiny/report/report.html"}


def test_the_demo_runs_the_study_that_is_packaged(here, capsys, monkeypatch, quick_report):
    import welltuned.cli.demo as demo

    (here / "demo.toml").write_text(STUDY.replace('"tiny"', '"demo"'))
    monkeypatch.setattr(demo, "study_file", lambda: here / "demo.toml")
    assert call("demo") == 0
    assert output(capsys).splitlines()[-1] == "look at runs/demo/report/report.html"


def test_the_demo_study_is_found_in_a_checkout_and_in_a_wheel():
    import welltuned.cli.demo as demo

    assert Spec.load(demo.study_file()).name == "demo"
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["force-include"] == {"studies/demo.toml": f"welltuned/cli/{demo.NAME}"}


def environment(**more: str) -> dict[str, str]:
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")])
    return {**os.environ, "PYTHONPATH": path, **more}


FAKE_COMMAND = """
import functools, sys
from welltuned import cli, report, study
study.Options = functools.partial(study.Options, entry="fake_worker:run")
if __name__ == "__main__":
    cli.main(sys.argv[1:])
"""


def test_ctrl_c_says_how_to_go_on_and_ends_with_130(here, capsys, quick_report):
    (here / "command.py").write_text(FAKE_COMMAND)
    arguments = [sys.executable, "command.py", "run", "tiny.toml"]
    slow = environment(FAKE_STEP_SECONDS="0.5")
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=slow) as process:
        assert process.stderr is not None
        while "training" not in (line := process.stderr.readline()):
            assert line, "it ended before it trained"
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Interrupted. In runs/tiny 0 of 12 trials are finished" in error
    assert "run the same command again to go on" in error and "Traceback" not in error
    assert call("run", "tiny.toml") == 0
    assert "report: runs/tiny" in output(capsys)


# export, doctor -------------------------------------------------------------------------------------------------------


def test_export_of_the_best_trial(here, capsys, monkeypatch, quick_report):
    import welltuned.export

    calls = []

    def export(folder, trial_id, to, merged, force):
        calls.append((folder, trial_id, to, merged, force))
        agreement = welltuned.export.Agreement("validation rows", 50, 800, 0.99, 0.03, 50, 47) if merged else None
        return welltuned.export.Exported(trial_id, to, "merged" if merged else "peft", agreement)

    monkeypatch.setattr(welltuned.export, "export", export)
    assert call("run", "tiny.toml") == 0
    capsys.readouterr()
    assert call("export", "runs/tiny", "best", "--to", "adapter") == 0
    reruns = [result for result in study.Study("runs/tiny").results() if result.role == "confirm"]
    best = min((result for result in reruns if result.adapter), key=lambda result: result.validation_nll or 9e9)
    assert calls == [(pathlib.Path("runs/tiny"), best.trial_id, pathlib.Path("adapter"), False, False)]
    assert output(capsys) == f"wrote trial {best.trial_id} to adapter\n"
    assert call("export", "runs/tiny", "abc", "--to", "there", "--merged", "--force") == 0
    assert calls[-1] == (pathlib.Path("runs/tiny"), "abc", pathlib.Path("there"), True, True)
    shown = output(capsys)
    assert "the same token most likely at 99.00 % of 800 positions; logits differ by at most 3.0e-02" in shown
    assert "Of 50 texts written greedily, 47 are the same." in shown
    assert call("export", "runs/tiny", "abc", "--to", "there", "--merged", "--json") == 0
    told = json.loads(output(capsys))
    assert (told["folder"], told["form"], told["agreement"]["share"]) == ("there", "merged", 0.99)


def test_there_is_no_best_trial_of_nothing():
    with pytest.raises(
        InputError, match="got 0 ended trials without an adapter, expected a finished one; run the study"
    ):
        _results.best_trial(())


@pytest.mark.parametrize(("ok", "status"), [(True, 0), (False, 1)])
def test_doctor(ok, status, here, capsys, monkeypatch):
    from welltuned.evaluate import doctor

    check = doctor.Check("packed equals alone: lora", ok, "3e-16", "at most 1e-9")
    monkeypatch.setattr(doctor, "check", lambda config: (check,))
    assert call("doctor") == status
    assert output(capsys).splitlines()[1].split()[0] == ("ok" if ok else "WRONG")
    assert call("doctor", "--json") == status
    assert json.loads(output(capsys))[0]["ok"] is ok
    asked = []
    monkeypatch.setattr(doctor, "check_on", lambda config, method: asked.append((config.base, method)) or (check,))
    assert call("doctor", "--method", "pissa", "--model", "mine") == status
    assert asked == [("mine", "pissa")]
    capsys.readouterr()
    assert call("doctor", "--model", "mine") == 2
    assert capsys.readouterr().err == (
        "error: --model: got 'mine', expected a --method beside it, which is checked on that model; "
        "add --method lora, for instance, or leave it out\n"
    )


def test_missing_numbers_read_as_a_dash_and_never_as_zero():
    results, declaration = synthetic.study()
    unfinished = [result for result in results if result.role == "select"]
    text = _results.results_text(unfinished, declaration)
    assert "–" in text and "In parentheses" in text
    assert Status.FINISHED.value in _results.trials_text(results, declaration)
