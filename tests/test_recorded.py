"""The recorded study: it reads back as it was, and its report says what its numbers say."""

from pathlib import Path

import pytest

import synthetic
from welltuned import plugins, report
from welltuned.analysis import summary
from welltuned.errors import InputError
from welltuned.records import Role
from welltuned.spec import Spec
from welltuned.store import recorded

TABLE = Path(__file__).parent / "recorded" / "batch_by_method.jsonl.gz"


def test_a_table_reads_back_as_it_was(tmp_path):
    """Every field of every record, and the same bytes for the same study."""
    results, declaration = synthetic.study()
    recorded.write(tmp_path / "one.jsonl.gz", declaration, results)
    assert recorded.read(tmp_path / "one.jsonl.gz") == (declaration, tuple(results))
    recorded.write(tmp_path / "two.jsonl.gz", declaration, results)
    assert (tmp_path / "one.jsonl.gz").read_bytes() == (tmp_path / "two.jsonl.gz").read_bytes()


def test_another_format_is_refused(tmp_path):
    """It says what to do."""
    results, declaration = synthetic.study()
    recorded.write(tmp_path / "old.jsonl.gz", declaration, results)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recorded, "FORMAT", 2)
        with pytest.raises(InputError, match="got 1, expected a recorded study of format 2; record the study again"):
            recorded.read(tmp_path / "old.jsonl.gz")


def test_the_recorded_study_has_no_hole():
    """All cells, all learning rates, fresh seeds, graded."""
    declaration, results = recorded.read(TABLE)
    assert declaration.finished
    rows = summary.summarise(results, declaration.cell)
    assert {(row.method, row.batch_size) for row in rows} == {
        (method, batch) for method in ("lora", "pissa", "milora") for batch in (4, 16, 64, 256)
    }
    select = [result for result in results if result.role is Role.SELECT]
    assert len(select) == 3 * 4 * 6
    assert all(len(row.fresh) == 3 for row in rows)
    assert len({result.trial_id for result in results}) == len(results)


def test_tuned_loss_depends_on_learning_rate_and_batch_by_more_than_seeds_do():
    """The bundled task is worth tuning: 5 seed standard deviations over 16-fold rates and over batch 4 to 64."""
    declaration, results = recorded.read(TABLE)
    lora = [row for row in summary.summarise(results, declaration.cell) if row.method == "lora"]
    best = min(lora, key=lambda row: row.selection_nll)
    nlls = [
        result.validation_nll
        for result in results
        if result.role is Role.CONFIRM
        and result.config.method == "lora"
        and result.config.batch_size == best.batch_size
    ]
    mean = sum(nlls) / len(nlls)
    sd = (sum((nll - mean) ** 2 for nll in nlls) / (len(nlls) - 1)) ** 0.5
    sweep = {
        result.config.learning_rate: result.validation_nll
        for result in results
        if result.role is Role.SELECT and result.config.method == "lora" and result.config.batch_size == best.batch_size
    }
    within = [nll for rate, nll in sweep.items() if best.selected_rate / 16 <= rate <= best.selected_rate]
    assert max(within) - min(within) > 5 * sd
    by_batch = {row.batch_size: row.selection_nll for row in lora}
    assert by_batch[64] - by_batch[4] > 5 * sd


def test_its_report_is_made_without_training_code(tmp_path):
    """The page of the recorded study, with every figure."""
    declaration, results = recorded.read(TABLE)
    page = report.build(results, declaration, tmp_path).read_text()
    assert "batch-by-method" in page and page.count("Not drawn") == 2  # no verdict, and times that are nearly equal
    assert page.index("Not drawn") > page.rindex("<svg")
    assert {path.stem for path in (tmp_path / "figures").glob("*.svg")} == set(plugins.names("figures")) - {
        "differences",
        "pareto",
    }
    again = Spec.load(tmp_path / "study.toml").text().splitlines()
    assert set(declaration.spec_text.splitlines()) <= set(again)  # settings that came later have their defaults
