"""Rows that are not what they seem: copies, seeds twice, columns that nobody read, numbers of another kind."""

import dataclasses
import itertools
import json
from pathlib import Path

import pytest

import synthetic
from welltuned.audit import Request, audit, studies
from welltuned.audit.assemble import of_book
from welltuned.audit.conclusions import Standing
from welltuned.errors import InputError
from welltuned.records import Role

# Accuracies of three seeds at three learning rates: a difference of 1.6 points within a noise of 0.8.
VALUES = {
    ("lora", 1e-4): (60.0, 61.5, 60.5),
    ("lora", 2e-4): (61.0, 62.4, 61.4),
    ("lora", 4e-4): (60.1, 60.0, 61.9),
    ("pissa", 1e-4): (61.0, 61.2, 62.5),
    ("pissa", 2e-4): (64.0, 62.6, 63.0),
    ("pissa", 4e-4): (60.0, 62.9, 61.0),
}
HEAD = "method,lr,batch_size,rank,seed,accuracy\n"
ROWS = "".join(
    f"{name},{rate},16,8,{seed},{value}\n"
    for (name, rate), values in VALUES.items()
    for seed, value in enumerate(values)
)


def of_text(tmp_path: Path, text: str, request: Request | None = None):
    path = tmp_path / "table.csv"
    path.write_text(text, encoding="utf-8")
    return audit(path, request)


def problems(tmp_path: Path, text: str) -> str:
    with pytest.raises(InputError) as caught:
        of_text(tmp_path, text)
    return str(caught.value)


def serious(found) -> str:
    return "\n".join(finding.text for finding in found.findings if finding.serious)


def notes(found) -> str:
    return "\n".join(finding.text for finding in found.findings if not finding.serious)


# Copies and seeds ----------------------------------------------------------------------------------------------------


def test_copies_of_rows_change_no_verdict_and_are_told_with_their_lines(tmp_path):
    once, thrice = of_text(tmp_path, HEAD + ROWS), of_text(tmp_path, HEAD + 3 * ROWS)
    assert once.conclusions == thrice.conclusions and once.conclusions[0].standing is Standing.DOES_NOT
    assert "copies, and left out: 36 rows, line 20, line 21" in notes(thrice) and "copies" not in notes(once)
    assert dict(thrice.book.used)["copies, left out"].startswith("36 rows, line 20")


def test_copied_means_are_no_more_seeds(tmp_path):
    text = "method,accuracy,n_seeds\n" + 2 * "lora,61 ± 0.3,3\npissa,62 ± 0.3,3\n"
    assert [row.num_runs for row in of_text(tmp_path, text).tuned] == [3, 3]


def test_equal_runs_without_a_seed_are_kept_and_doubted(tmp_path):
    text = "method,lr,accuracy\nlora,1e-4,61\nlora,1e-4,61\npissa,1e-4,62\n"
    found = of_text(tmp_path, text)
    assert found.tuned[0].num_runs == 2
    assert "1 row exactly as another and without a seed (line 3): counted as repeats." in serious(found)


def test_a_seed_with_several_numbers_counts_once_and_is_told(tmp_path):
    again = ROWS.replace(",0,64.0", ",0,64.2")  # another number for one seed of pissa's best
    found = of_text(tmp_path, HEAD + ROWS + again)
    assert "The same configuration and seed has different numbers in 1 case" in serious(found)
    pissa = next(row for row in found.tuned if row.method == "pissa")
    assert pissa.headline.num_seeds == 3
    assert dict(pissa.headline.by_seed) == pytest.approx({"0": 64.1, "1": 62.6, "2": 63.0})
    assert found.conclusions[0].noise.high_degrees == 2
    assert "has different numbers" not in serious(of_text(tmp_path, HEAD + ROWS))


# Columns that were not read ------------------------------------------------------------------------------------------

BY_EPOCH = "".join(
    f"{name},{rate},16,8,{seed},{epoch},{value + added:.1f}\n"
    for (name, rate), values in VALUES.items()
    for seed, value in enumerate(values)
    for epoch, added in ((1, -20), (2, -8), (3, 0))
)


def test_an_unread_column_that_tells_repeats_apart_is_a_serious_finding_and_nothing_can_be_told(tmp_path):
    text = "method,lr,batch_size,rank,seed,epoch,accuracy\n" + BY_EPOCH
    found = of_text(tmp_path, text)
    assert "Rows of one configuration and seed differ in epoch, which was not read, and count as repeats" in serious(
        found
    )
    assert "write --column setting=epoch." in serious(found)
    (one,) = found.conclusions
    assert one.standing is Standing.CANNOT_TELL
    assert one.reasons[0] == "repeats of pissa that have the same seed differ in epoch, which was not read"
    assert dict(found.book.used)["not read"] == "epoch"
    done = of_text(tmp_path, text, Request(columns={"setting": ("epoch",)}))  # what the finding says
    assert "epoch" not in serious(done) and done.tuned[0].headline.value == pytest.approx(61.6)


def test_an_unread_column_without_seeds_may_be_the_seed(tmp_path):
    text = "method,lr,alpha,fold,accuracy\n" + "".join(
        f"{name},1e-4,16,{fold},{61 + fold + (name == 'pissa')}\n" for name in ("lora", "pissa") for fold in range(3)
    )
    found = serious(of_text(tmp_path, text))
    assert (
        "write --column setting=fold, and so for those read now (alpha); if one tells seeds apart, --column seed=fold"
        in found
    )


def test_outcomes_and_names_of_repeats_are_no_settings(tmp_path):
    text = "method,lr,run_id,valid_accuracy,seconds,test_accuracy\n" + "".join(
        f"{name},1e-4,{n % 2},{n % 3},{7.1 * n},{60 + n}\n" for n, name in enumerate(("lora", "lora", "pissa", "pissa"))
    )
    found = of_text(tmp_path, text)
    assert "which was not read" not in serious(found)
    assert dict(found.book.used)["not read"] == "run_id, valid_accuracy, seconds"


def test_rows_in_several_metrics_are_refused(tmp_path):
    text = "method,lr,metric,value\nlora,1e-4,accuracy,0.6\nlora,1e-4,loss,1.2\npissa,1e-4,accuracy,0.6\n"
    path = tmp_path / "long.csv"
    path.write_text(text)
    with pytest.raises(
        InputError, match=r"column metric: got 'accuracy and loss \(line 2, line 3\)', expected one metr"
    ):
        audit(path, Request(columns={"metric": ("value",)}, higher_is_better=True))


def test_a_column_of_seeds_that_may_hold_seeds_or_their_number_is_asked_about(tmp_path):
    text = HEAD.replace("seed", "seeds") + ROWS
    text = text.replace(",8,0,", ",8,41,").replace(",8,1,", ",8,42,").replace(",8,2,", ",8,43,")
    found = problems(tmp_path, text)
    assert (
        "column seeds: got '41, 42, 43 for one configuration (line 2, line 3, line 4)', expected either a seed" in found
    )
    assert "write --column seed=seeds if these are seeds, --column num_seeds=seeds if they count seeds" in found
    told = of_text(tmp_path, text, Request(columns={"seed": ("seeds",)}))
    assert {row.num_seeds for row in told.tuned} == {3}
    means = "method,lr,seeds,accuracy\nlora,1e-4,3,61\nlora,2e-4,5,62\n"  # a number for each configuration: no doubt
    assert of_text(tmp_path, means).tuned[0].num_runs == 8


# Rows of the kind that judges ----------------------------------------------------------------------------------------

SPLIT = (
    "method,lr,split,accuracy\nlora,1e-4,val,70\nlora,2e-4,val,72\nlora,4e-4,val,71\nlora,2e-4,test,60\n"
    "pissa,1e-4,val,69\npissa,2e-4,val,71\npissa,4e-4,val,68\n"
)


def test_a_method_without_a_test_row_is_not_compared_by_its_validation_rows(tmp_path):
    found = of_text(tmp_path, SPLIT)
    (one,) = found.conclusions
    assert (one.standing, one.difference, one.winner) == (Standing.CANNOT_TELL, None, "lora")
    assert one.reasons == ("pissa has no test row of its best configuration",)
    assert "No test row of the best configuration, hence no comparison: pissa." in serious(found)
    assert found.verdict[1].endswith("0 survive, 0 do not, and 1 cannot be told from it.")
    again = of_text(tmp_path, SPLIT + "pissa,2e-4,test,63\n")
    assert again.conclusions[0].difference == pytest.approx(3) and "No test row" not in serious(again)


def test_a_baseline_without_a_test_row_is_not_compared_either(tmp_path):
    text = SPLIT.replace("lora,2e-4,test,60", "dora,2e-4,val,70\ndora,2e-4,test,60") + "pissa,2e-4,test,63\n"
    found = of_text(tmp_path, text)
    told = {(one.winner, one.loser): one.difference for one in found.conclusions}
    assert told == {("lora", "pissa"): None, ("lora", "dora"): None, ("pissa", "dora"): pytest.approx(3)}


def test_test_rows_that_nothing_chose_are_told_and_not_left_out_in_silence(tmp_path):
    found = of_text(tmp_path, SPLIT.replace("pissa,2e-4,val", "dora,2e-4,test"))
    assert "A test row without one that could have chosen it, hence not used: dora." in serious(found)
    alone = of_text(tmp_path, "method,lr,split,accuracy\nlora,1e-4,val,70\nlora,1e-4,test,60\npissa,1e-4,test,71\n")
    assert alone.verdict[1].startswith("No method but lora has numbers that choose its configuration")


@pytest.mark.parametrize(("metric", "kind"), [("validation_nll", "fresh rerun"), ("test_accuracy", "graded rerun")])
def test_a_study_s_method_without_reruns_is_not_compared(metric, kind):
    results, _ = synthetic.study()
    left = [one for one in results if not (one.config.method == "pissa" and one.role is Role.CONFIRM)]
    found = of_book(studies.of_study("study", left, metric), Request())
    assert next(row for row in found.tuned if row.method == "pissa").headline is None
    (one,) = [one for one in found.conclusions if "pissa" in (one.winner, one.loser)]
    assert one.reasons == (f"pissa has no {kind} of its best configuration",) and one.difference is None
    json.dumps(dataclasses.asdict(one), allow_nan=True)


def test_a_study_is_judged_at_what_its_search_reran():
    """The best single trial need not be what was rerun: a search may ask for every seed."""
    results, _ = synthetic.study()
    reruns = {one.config.learning_rate for one in results if one.config.method == "lora" and one.role is Role.CONFIRM}
    lucky = next(
        one
        for one in results
        if one.config.method == "lora" and one.role is Role.SELECT and one.config.learning_rate not in reruns
    )
    changed = [dataclasses.replace(one, validation_nll=0.01) if one is lucky else one for one in results]
    found = of_book(studies.of_study("study", changed, "validation_nll"), Request())
    row = next(row for row in found.tuned if row.method == "lora")
    assert row.headline is not None and row.chosen.place.learning_rate in reruns


# Problems, scope, rates ----------------------------------------------------------------------------------------------


def test_methods_that_share_no_problem_are_said_so_with_its_columns(tmp_path):
    text = "method,model,lr,accuracy\nlora,my-lora,1e-4,61\npissa,my-pissa,1e-4,62\n"
    found = of_text(tmp_path, text)
    assert found.verdict[1] == (
        "No two methods share a problem (model), so that none can be compared; if it tells no data or models apart, "
        "add --value problem=all."
    )
    assert len(of_text(tmp_path, text, Request(values={"problem": "all"})).conclusions) == 1


def grid(values, spread=0.2) -> str:
    """Write means of 5 seeds at three rates (the middle one the best), by method and batch size, at two ranks."""
    rows = "".join(
        f"{name},{rate},{batch},{rank},5,{value - away - 0.5 * (rank == 8)},{spread}\n"
        for (name, batch), value in values.items()
        for (rate, away), rank in itertools.product(((1e-4, 1), (2e-4, 0), (4e-4, 1)), (8, 16))
    )
    return "method,lr,batch_size,rank,n_seeds,accuracy,std\n" + rows


def test_a_conclusion_that_survives_names_both_configurations_and_where_the_order_turns(tmp_path):
    lora, pissa = {4: 60, 16: 58, 64: 55}, {4: 64, 16: 55, 64: 45}
    values = {("lora", at): lora[at] for at in lora} | {("pissa", at): pissa[at] for at in pissa}
    (one,) = of_text(tmp_path, grid(values)).conclusions
    assert one.standing is Standing.SURVIVES
    assert one.scope == (
        "each at its best of batch sizes 4 to 64 and ranks 8 to 16",
        "pissa (learning rate 2e-4, batch size 4, rank 16) against lora (learning rate 2e-4, batch size 4, rank 16)",
        "but lora is ahead at batch sizes 16, 64",
    )
    ahead = of_text(tmp_path, grid(values | {("pissa", 16): 63, ("pissa", 64): 63})).conclusions[0]
    assert not any("is ahead" in text for text in ahead.scope)


def test_a_rate_that_was_varied_only_together_with_the_batch_size_was_not_tuned(tmp_path):
    rows = [("lora", 60), ("lora", 61), ("lora", 60), ("pissa", 63), ("pissa", 64), ("pissa", 63)]
    settings = 2 * [("1e-4", 4), ("2e-4", 16), ("4e-4", 64)]
    text = "method,lr,batch_size,rank,n_seeds,accuracy,std\n" + "".join(
        f"{name},{rate},{batch},8,5,{value},0.2\n" for (name, value), (rate, batch) in zip(rows, settings, strict=True)
    )
    found = of_text(tmp_path, text)
    (one,) = found.conclusions
    assert one.standing is Standing.CANNOT_TELL
    assert "lora was given one learning rate at its best batch size and rank" in one.reasons
    assert "One learning rate at the best batch size and rank, others only elsewhere, hence none tuned" in serious(
        found
    )
    assert "3 learning rates (one at its best batch size and rank)" in found.verdict[0]
    assert "say little about the methods" in found.verdict[0]


def test_rates_under_names_of_their_own_are_still_rates_of_one_batch_size(tmp_path):
    """A setting that only names the run (experiment) does not keep its rate from having neighbours."""
    text = "method,experiment,lr,batch_size,loss\n" + "".join(
        f"lora,lr-{rate},{rate},16,{loss}\n" for rate, loss in ((1e-4, 1.2), (2e-4, 1.0), (4e-4, 1.1))
    )
    knob = of_text(tmp_path, text).tuned[0].knob("learning_rate")
    assert (knob.num_at_best, knob.edge, knob.is_tied) == (3, "", False)
