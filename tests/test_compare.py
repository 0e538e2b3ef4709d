"""The verdict: planted truths, the order of the work and its errors, resuming, the ledger, retention."""

import csv
import dataclasses
import html
import importlib
import math
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import a_config
import synthetic
import tiny
import welltuned
from small_study import edited, fake_base, forge_hashes, plan_of, result_of
from welltuned import protocol
from welltuned.analysis import comparison, crossed
from welltuned.analysis.comparison import ACCURACY, LOSS, Terms
from welltuned.analysis.verdict import FAMILY, Kind, Margin, decide
from welltuned.cli._results import results_text
from welltuned.errors import InputError, MachineError, StoreError
from welltuned.evaluate import retention
from welltuned.figures import differences
from welltuned.packing.linear import PackedModel
from welltuned.records import Comparison, Graded, Hindsight, Outcome, Retained, Role, Status, Trial
from welltuned.report import build, verdicts
from welltuned.report.answer import answers, note
from welltuned.rng import stream
from welltuned.spec import Spec
from welltuned.store import Store, ledger
from welltuned.study import Note, Options, Study, compare, loop, oracle

CELL = ("method", "batch_size")
NUM_ITEMS = 4000


# Planted truths -------------------------------------------------------------------------------------------------------


def runs(method: str, share: float, num_seeds: int = 5, num_items: int = NUM_ITEMS, loss: float = 0.5) -> list:
    """Return a selection trial and its reruns, which answer this share of items right, all independent."""
    config = a_config.CONFIG.replace(method=method)
    found = [result_of(Trial(config, Role.SELECT), loss)]
    for seed in range(1000, 1000 + num_seeds):
        rerun = Trial(config.replace(init_seed=seed, order_seed=seed, subset_seed=seed), Role.CONFIRM)
        draws = stream(0, "answers", method, seed).random(num_items)
        nll = loss + 0.001 * (seed % 3) * (1 if method == "lora" else 1.2)
        found.append(result_of(rerun, nll, test_correct=tuple((draws < share).tolist())))
    return found


def judged(results: list, margin: float = 0.02, metric: str = ACCURACY) -> list:
    terms = [Terms((), metric, margin, "declared")]
    return list(comparison.compare(results, [], CELL, "lora", terms, "hash").pairs)


@pytest.mark.parametrize(
    ("share", "kind"),
    [(0.60, Kind.BETTER), (0.40, Kind.WORSE), (0.50, Kind.EQUIVALENT), (0.52, Kind.UNDECIDED)],
)
def test_a_planted_difference_gets_its_verdict(share, kind):
    (pair,) = judged(runs("lora", 0.5) + runs("pissa", share))
    assert pair.verdict == kind
    assert (pair.num_seeds, pair.num_items) == (5, NUM_ITEMS)
    assert pair.low < share - 0.5 < pair.high
    assert (pair.decides != "") == (kind is Kind.UNDECIDED)


def test_a_lower_loss_is_better():
    (pair,) = judged(runs("lora", 0.5, loss=0.5) + runs("pissa", 0.5, loss=0.4), margin=0.01, metric=LOSS)
    assert pair.verdict == Kind.BETTER and pair.num_items is None
    assert pair.margin == pytest.approx(0.01 * pair.baseline_value)


def test_a_diverged_rerun_counts_as_all_wrong_and_a_lost_one_leaves_its_seed_out():
    ours = runs("pissa", 0.5)
    ours[1] = dataclasses.replace(ours[1], status=Status.DIVERGED, test_correct=None, adapter=None)
    ours[2] = dataclasses.replace(ours[2], status=Status.LOST, test_correct=None, validation_nll=None)
    (pair,) = judged(runs("lora", 0.5) + ours)
    kept = [0.0] + [np.mean(one.test_correct) for one in ours[3:]]
    assert pair.num_seeds == 4 and pair.method_value == pytest.approx(np.mean(kept))


def test_holm_corrects_the_p_and_not_the_verdict_and_the_screen_says_so():
    names = ("pissa", "milora", "olora")
    pairs = judged(runs("lora", 0.5) + [one for name in names for one in runs(name, 0.56)])
    p_values = sorted(pair.p_value for pair in pairs)
    by_hand = np.maximum.accumulate([(3 - place) * p for place, p in enumerate(p_values)])
    assert sorted(pair.p_holm for pair in pairs) == pytest.approx(np.minimum(by_hand, 1).tolist())
    for name, pair in ((one.method, one) for one in pairs):
        (alone,) = judged(runs("lora", 0.5) + runs(name, 0.56))
        assert (alone.verdict, alone.low, alone.p_value) == (pair.verdict, pair.low, pair.p_value)
        assert alone.p_holm == alone.p_value < pair.p_holm
    assert "the verdicts are not" in FAMILY


def test_the_best_of_three_is_said_corrected_for_having_been_picked():
    terms = [Terms((), ACCURACY, 0.02, "declared")]
    near = [one for name, share in (("lora", 0.5), ("pissa", 0.5), ("milora", 0.505)) for one in runs(name, share)]
    far = [one for name, share in (("lora", 0.5), ("pissa", 0.5), ("milora", 0.7)) for one in runs(name, share)]
    for results, beats in ((near, False), (far, True)):
        found = comparison.compare(results, [], CELL, "lora", terms, "hash")
        declaration = dataclasses.replace(synthetic.study()[1], comparison=found)
        screen, note = results_text(results, declaration), verdicts.verdict_table(found).note
        words = "It beats every other" if beats else "It is not told from its nearest rival"
        assert all("Of all methods milora has the best mean. " + words in text for text in (screen, note))
    assert "  < 0.001  " in screen and "0.000" not in screen


def test_lines_of_several_problems_say_which_and_an_untuned_rate_is_not_called_tuned(whole):
    results, declaration = whole[1].results(), whole[1].declaration()
    rows = tuple(
        dataclasses.replace(row, problem=f"base {base}") for base in "ab" for row in declaration.comparison.forgetting
    )
    found = dataclasses.replace(declaration.comparison, forgetting=rows)
    oracle_rows = tuple(Hindsight(f"base {base}", "lora", 3, "x", 0.5, "y", 0.6, 0.4) for base in "ab")
    told = dataclasses.replace(declaration, comparison=found, hindsight=oracle_rows)
    screen = results_text(results, told)
    assert "forgetting, lora (base b) on " in screen and "oracle, lora (base b): test accuracy 50.0 %" in screen
    assert {row[0] for row in verdicts.forgetting_table(found).rows} >= {"lora\nbase a", "lora\nbase b"}
    assert "the learning rate was tuned in every cell" in screen
    one_rate = [one for one in results if one.config.learning_rate == results[0].config.learning_rate]
    assert "the learning rate was not tuned where it has one value" in results_text(one_rate, declaration)


# No verdict from nothing ----------------------------------------------------------------------------------------------


def test_where_seeds_cancel_out_the_residual_makes_the_width():
    """Item means that are all 0 and two nearly equal seeds had an interval of width 0, hence "equivalent"."""
    row = [1.0, -1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    values = np.array([row, [-value for value in row]])
    found = crossed.interval(values)
    residual = np.square(values - values.mean(1, keepdims=True)).sum() / 7
    half = 2.3646 * math.sqrt(residual / 16)  # t of 7 degrees of freedom
    assert (found.low95, found.high95) == pytest.approx((-half, half), rel=1e-4)
    assert found.p_value() == pytest.approx(1.0)
    assert decide(found, Margin(0.02, True, "declared")).kind is Kind.UNDECIDED


def test_no_two_seeds_of_eight_items_are_ever_equivalent_within_two_points():
    generator = stream(0, "tiny arrays")
    for _ in range(2000):
        row = generator.integers(-1, 2, 8)
        other = -row if generator.random() < 0.5 else generator.permutation(row)
        found = crossed.interval(np.array([row, other], dtype=float))
        assert decide(found, Margin(0.02, True, "declared")).kind is not Kind.EQUIVALENT
        assert found.low95 is None or found.high95 - found.low95 > 0.1


def test_the_residual_keeps_the_coverage():
    """Pure residual, few items: the true mean is within the 95 % interval in at least 95 % - 3 standard errors."""
    values = stream(0, "coverage").standard_normal((4000, 3, 8))
    parts = crossed.parts_of([values])
    inside = np.abs(values.mean((-1, -2))) <= crossed.half_width(parts, crossed.TAIL_95)
    assert inside.mean() >= 0.95 - 3 * math.sqrt(0.05 * 0.95 / 4000)


# What keeps a study from being compared -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"axes": {"method": ["lora"]}}, "got the one method lora, expected two or more; write"),
        (
            {"axes": {"method": ["milora", "pissa"]}},
            "compare.baseline: got 'lora', expected one of .*; write .compare.",
        ),
        ({"search": {"fresh_seeds": 1}}, "search.fresh_seeds: got 1, expected at least 2.*; write fresh_seeds = 5"),
    ],
)
def test_a_study_that_is_no_comparison_is_refused(changes, words, monkeypatch):
    forge_hashes(monkeypatch)
    with pytest.raises(InputError, match=words):
        protocol.check(plan_of(Spec.model_validate(edited(**changes))))


def test_unequal_budgets_are_refused_with_both_numbers(monkeypatch):
    forge_hashes(monkeypatch)
    plan = plan_of(Spec.model_validate(edited()))
    protocol.check(plan)
    more = dataclasses.replace(plan.budgets[0], num_tokens=2 * plan.budgets[0].num_tokens)
    with pytest.raises(InputError, match=r"unequal budgets.*lora.*pissa.*expected equal tokens; give every method"):
        protocol.check(dataclasses.replace(plan, budgets=(more, *plan.budgets[1:])))


# The order of the work ------------------------------------------------------------------------------------------------


def write(folder: Path, fresh_seeds: int = 3, split_seed: int = 0) -> Path:
    """Write a study on a base of no weights, with a text for retention."""
    base = fake_base(folder)
    (folder / "text.txt").write_text("what was known before")
    file = folder / f"study{fresh_seeds}{split_seed}.toml"
    file.write_text(f"""
name = "tiny"
[model]
base = "{base}"
[task]
task = "abacus"
num_train = 64
num_validation = 8
num_test = 8
split_seed = {split_seed}
max_length = 64
[train]
batch_size = 4
[axes]
method = ["lora", "pissa"]
learning_rate = [1e-3, 1e-2]
[search]
fresh_seeds = {fresh_seeds}
[compare]
retention = ["{folder / "text.txt"}"]
""")
    return file


OPTIONS = Options(threads=1, memory_bytes=2**31, entry="fake_worker:run")


def stored(study: Study) -> tuple:
    results = [dataclasses.replace(one, seconds=0.0) for one in study.results()]
    return results, study.declaration().comparison


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[Path, Study]:
    """Return a study file and the study, compared without interruption. Not to be written to."""
    folder = tmp_path_factory.mktemp("whole")
    file = write(folder)
    return file, compare(file, folder / "study", options=OPTIONS)


def test_compare_ends_with_a_stored_verdict_that_is_shown_and_reported(whole):
    _, study = whole
    found = study.declaration().comparison
    (pair,) = found.pairs
    assert (pair.method, pair.baseline, pair.metric, pair.num_seeds, pair.num_items) == (
        "pissa", "lora", ACCURACY, 3, 8,
    )  # fmt: skip
    assert {row.method for row in found.forgetting} == {"lora", "pissa"}
    assert all(row.base_nll == 2.0 < row.nll for row in found.forgetting)
    screen = results_text(study.results(), study.declaration())
    assert pair.words in screen and FAMILY in screen
    first = answers((), found)[0]
    assert first.startswith("Verdict. Against lora, pissa is ") and pair.words in first
    assert "no verdict" in note(None) and FAMILY in note(found)


def test_the_page_has_the_verdict_its_picture_and_the_counted_reads(whole, tmp_path):
    _, study = whole
    page = build(study.results(), study.declaration(), tmp_path)
    text = html.unescape(page.read_text(encoding="utf-8"))
    (pair,) = study.declaration().comparison.pairs
    assert text.index("Verdict. Against lora, pissa is") < text.index("Caveats</h2>") < text.index("The verdict</h3>")
    assert "What was forgotten" in text and "read test set" in text
    assert (tmp_path / "figures" / "differences.svg").is_file()
    (row,) = csv.DictReader((tmp_path / "tables" / "verdict.csv").read_text(encoding="utf-8").splitlines())
    assert float(row["difference"]) == pair.difference and row["verdict"] == pair.verdict


def test_the_picture_of_differences_states_what_is_drawn():
    found = judged(runs("lora", 0.5) + runs("pissa", 0.6) + runs("milora", 0.5))
    declared = Comparison("lora", (*found, dataclasses.replace(found[0], difference=None)), (), (), "hash")
    declaration = dataclasses.replace(synthetic.study()[1], comparison=declared)
    numbers = differences.compute((), declaration)
    assert [pair.method for pair in numbers.pairs] == [pair.method for pair in found]
    told = differences.alt(numbers)
    assert all(pair.words in told and f"{100 * pair.difference:+.1f}".replace("-", "−") in told for pair in found)
    caption = differences.caption(numbers)
    assert "5 shared fresh seeds on 4,000 test items" in caption and "1 pair without a difference left out" in caption
    axes = differences.draw(numbers).axes[0]
    drawn = {round(float(line.get_xdata()[0]), 6) for line in axes.lines if line.get_marker() == "o"}
    assert drawn == {round(100 * pair.difference, 6) for pair in found}


def test_a_study_without_a_verdict_has_no_picture_of_one():
    assert "No verdict is stored" in differences.compute((), synthetic.study()[1])


def test_hindsight_is_a_table_of_three_accuracies():
    row = Hindsight("", "lora", 4, "batch 8, learning rate 1e-3", 0.15, "batch 8, learning rate 2e-3", 0.18, 0.10)
    (cells,) = verdicts.hindsight_table([row]).rows
    assert [cell.partition("\n")[0] for cell in cells] == ["lora", "15.0 %", "18.0 %", "10.0 %", "4"]


def test_run_and_compare_train_the_same_trials(whole, tmp_path):
    file, study = whole
    ran = welltuned.run(file, tmp_path / "run", options=OPTIONS)
    assert stored(ran)[0] == stored(study)[0]
    assert stored(ran)[1] is None
    assert stored(compare(file, tmp_path / "run", options=OPTIONS)) == stored(study)


@pytest.mark.parametrize(("kind", "place"), [(Outcome, 1), (Outcome, 6), (Graded, 2), (Retained, 1), (Retained, 5)])
def test_a_comparison_that_is_interrupted_comes_to_the_same_verdict(kind, place, whole, tmp_path):
    file, study = whole
    seen = []

    def stop(notice):
        seen.append(notice)
        if isinstance(notice, kind) and sum(isinstance(one, kind) for one in seen) == place:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare(file, tmp_path / "study", stop, OPTIONS)
    assert Study(tmp_path / "study").declaration().comparison is None
    assert stored(compare(file, tmp_path / "study", options=OPTIONS)) == stored(study)


# Where a comparison is killed, and how often the test data was read for a trial by its end: what was graded and is lost
# with the process is read again, what is stored is not.
PLACES = {
    "selection": 1,
    "confirmation": 1,
    "read logged here only": 1,
    "exam starts": 1,
    "grading": 2,
    "retention": 1,
    "verdict not yet stored": 1,
    "verdict just stored": 1,
}


def in_a_process(file: Path, folder: Path, place: str, reads: Path) -> int:
    """Compare in a process of its own that dies at a place, and return how it ended."""
    environment = {**os.environ, "FAKE_READS": str(reads), "PYTHONPATH": os.pathsep.join(map(str, sys.path))}
    program = str(Path(__file__).with_name("compare_study.py"))
    command = [sys.executable, program, str(file), str(folder), place]
    return subprocess.run(command, env=environment, capture_output=True, check=False).returncode


@pytest.mark.parametrize("place", PLACES)
def test_a_comparison_that_is_killed_comes_to_the_same_verdict_and_reads_no_more(place, whole, tmp_path):
    """kill -9 in every phase. What is read of the test data is logged first, and read again only if it was lost."""
    file, study = whole
    folder, reads = tmp_path / "study", tmp_path / "reads.txt"
    assert in_a_process(file, folder, place, reads) == -signal.SIGKILL
    assert (Study(folder).declaration().comparison is not None) == (place == "verdict just stored")
    before = [one for one in Study(folder).results() if one.status is Status.FINISHED]
    assert in_a_process(file, folder, "", reads) == 0
    assert stored(Study(folder)) == stored(study)
    assert {one.trial_id: one.seconds for one in before}.items() <= {
        one.trial_id: one.seconds for one in Study(folder).results()
    }.items()  # what was trained was not trained again
    with Store.open(study.folder) as one, Store.open(folder) as other:
        assert one.test_reads() == other.test_reads()
        (logged,) = other.test_reads().values()
    (count,) = Study(folder).declaration().test_reads
    assert (count.num_studies, count.num_configurations) == (1, 6)
    read = Counter(reads.read_text().split())
    assert set(read) == logged and len(logged) == 6
    assert max(read.values()) == PLACES[place]


def test_a_lost_retention_job_is_cut_in_half_and_the_verdict_is_the_same(whole, tmp_path, monkeypatch):
    file, study = whole
    moods = tmp_path / "moods"
    moods.mkdir()
    (moods / "retention").touch()
    monkeypatch.setenv("FAKE_MOODS", str(moods))
    notes = []
    ran = compare(
        file, tmp_path / "study", lambda seen: notes.append(seen) if isinstance(seen, Note) else None, OPTIONS
    )
    assert stored(ran) == stored(study) and ran.declaration().num_lost == 1
    assert len(ran.declaration().comparison.forgetting) == 2
    assert any("retention-" in note.text and "trying again with 3 trials and 3 trials" in note.text for note in notes)


def test_a_retention_job_that_is_lost_again_and_again_is_told_and_can_be_gone_on_with(whole, tmp_path, monkeypatch):
    file, study = whole
    moods = tmp_path / "moods"
    moods.mkdir()
    for number in range(30):
        (moods / f"retention-{number}").touch()
    monkeypatch.setenv("FAKE_MOODS", str(moods))
    told = (
        r"measuring 1 adapter on .*text\.txt: the worker was lost 4 times.*free some memory and run again: nothing is"
    )
    with pytest.raises(MachineError, match=told):
        compare(file, tmp_path / "study", options=OPTIONS)
    assert Study(tmp_path / "study").declaration().comparison is None
    for mood in moods.iterdir():
        mood.unlink()
    assert stored(compare(file, tmp_path / "study", options=OPTIONS)) == stored(study)


def test_the_oracle_pass_is_refused_before_the_verdict_and_changes_no_result(tmp_path):
    file, folder = write(tmp_path), tmp_path / "study"
    welltuned.run(file, folder, options=OPTIONS)
    with pytest.raises(StoreError, match=r"oracle pass: got no stored verdict.*run welltuned compare without --oracle"):
        oracle(file, folder, options=OPTIONS)
    with Store.open(folder) as store:
        assert store.oracle() == {}
    before = stored(compare(file, folder, options=OPTIONS))
    study = oracle(file, folder, options=OPTIONS)
    assert stored(study) == before
    rows = study.declaration().hindsight
    assert [row.method for row in rows] == ["lora", "pissa"]
    assert all(row.num_candidates == 2 and row.best_accuracy >= row.chosen_accuracy for row in rows)


def test_a_stored_verdict_never_changes(whole):
    _, study = whole
    found = study.declaration().comparison
    other = dataclasses.replace(found, baseline="pissa")
    with Store.create(study.folder, study.name, study.spec.text(), study.spec.hash(), None) as store:
        assert store.store_verdict(other) == found


def test_whole_models_are_measured_on_a_text_one_by_one():
    """Two in one job found no pack that could hold them, and so for ever."""
    module = importlib.import_module("welltuned.study.compare")
    for method, sizes in (("full_all", [1, 1]), ("lora", [2])):
        config = a_config.CONFIG.replace(method=method)
        trials = [Trial(config.replace(init_seed=seed), Role.CONFIRM) for seed in (1000, 1001)]
        results = [result_of(trial) for trial in trials]
        stored_results = SimpleNamespace(results=lambda found=results: found)
        assert [len(part) for part, _ in loop.parts_of(trials, stored_results, module._retention_width)] == sizes


def test_a_retention_text_that_changed_is_refused(tmp_path):
    file, folder = write(tmp_path), tmp_path / "study"
    compare(file, folder, options=OPTIONS)
    (tmp_path / "text.txt").write_text("another")
    with pytest.raises(StoreError, match=r"text\.txt changed since the study began.*compare in another folder"):
        compare(file, folder, options=OPTIONS)


def test_the_ledger_counts_the_reads_of_both_studies_of_one_test_set(tmp_path):
    """Reruns on seeds 1000 to 1002 are trials of both studies; those on 1003 only of the second; resuming adds none."""
    first = compare(write(tmp_path), tmp_path / "one", options=OPTIONS)
    second = compare(write(tmp_path, fresh_seeds=4), tmp_path / "two", options=OPTIONS)
    compare(write(tmp_path), tmp_path / "one", options=OPTIONS)
    other = compare(write(tmp_path, split_seed=1), tmp_path / "three", options=OPTIONS)
    for study, expected in ((first, (2, 8)), (second, (2, 8)), (other, (1, 6))):
        (count,) = study.declaration().test_reads
        assert (count.num_studies, count.num_configurations) == expected
    assert f"{ledger.path()}".endswith("test_reads.db") and ledger.path().is_file()


# Real models ----------------------------------------------------------------------------------------------------------


class Words:
    """A tokenizer whose tokens are letters, without a beginning-of-text token."""

    bos_token_id = None

    def __call__(self, text, add_special_tokens=True, verbose=True):
        return {"input_ids": [2 + ord(letter) % 20 for letter in text]}


def test_retention_is_the_plain_mean_of_the_base_s_token_losses(tmp_path):
    """Against a sum written out, one piece at a time, on a tiny model; pieces do not see each other."""
    import torch

    file = tmp_path / "text.txt"
    file.write_text("the quick brown fox jumps over it")
    plain = tiny.llama()
    model = PackedModel(tiny.base(tiny.llama()))
    object.__setattr__(model.base, "tokenizer", Words())
    rows = retention.rows_of(file.read_text(), Words(), 10)
    losses = []
    for piece in rows.token_ids:
        ids = torch.tensor(piece)[None]
        scores = torch.log_softmax(plain(input_ids=ids).logits[0, :-1], -1)
        losses += (-scores.gather(1, ids[0, 1:, None])).flatten().tolist()
    events = retention.measure(model, None, ("only",), str(file), 10, 0)
    assert events[0].num_tokens == len(losses) == 33 - 4
    assert events[0].base_nll == events[0].nll == pytest.approx(np.mean(losses), rel=1e-9)


def test_the_smallest_real_study_is_compared_to_its_end(tmp_path):
    """The bundled base, trained, graded and measured by the real worker."""
    (tmp_path / "text.txt").write_text("12 + 7 = 19\n" * 8)
    file = tmp_path / "study.toml"
    file.write_text(f"""
name = "real"
[model]
base = "abacus-small"
[task]
task = "abacus"
num_train = 32
num_validation = 8
num_test = 8
[train]
batch_size = 16
[axes]
method = ["lora", "pissa"]
learning_rate = [1e-3]
[search]
fresh_seeds = 2
[compare]
retention = ["{tmp_path / "text.txt"}"]
""")
    study = compare(file, tmp_path / "study", options=Options(threads=1, memory_bytes=2**31))
    found = study.declaration().comparison
    (pair,) = found.pairs
    assert (pair.num_seeds, pair.num_items) == (2, 8) and pair.verdict == Kind.UNDECIDED
    assert all(row.base_nll > 0 and row.nll != row.base_nll for row in found.forgetting)
