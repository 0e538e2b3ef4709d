"""Studies whose search has a budget, from end to end on a worker that trains nothing: run, interrupted, reported."""

from pathlib import Path

import pytest

import welltuned
from small_study import fake_base
from test_study import ENTRY, same_rows
from welltuned.records import Role
from welltuned.store import Store
from welltuned.study import Options

SEARCHES = ["halving", "asha", "one_epoch", "optuna"]


def write_spec(folder: Path, search: str) -> Path:
    file = folder / "study.toml"
    file.write_text(f"""
name = "searched"
[model]
base = "{fake_base(folder)}"
[task]
task = "abacus"
num_train = 64
num_validation = 8
num_test = 8
max_length = 64
[train]
rank = 4
num_evaluations = 1
[axes]
method = ["lora", "pissa"]
batch_size = [1, 2]
learning_rate = [1e-3, 2e-3, 5e-3, 1e-2, 1.0]
[search]
search = "{search}"
budget = 4
width = 2
fresh_seeds = 2
""")
    return file


def options() -> Options:
    return Options(threads=1, memory_bytes=2**31, entry=ENTRY)


@pytest.mark.parametrize("search", SEARCHES)
def test_interrupted_anywhere_a_search_goes_on_as_if_it_had_not_been(search: str, tmp_path: Path) -> None:
    spec = write_spec(tmp_path, search)
    events = []
    study = welltuned.run(spec, tmp_path / "whole", events.append, options())
    results = study.results()
    roles = {role: [r for r in results if r.role is role] for role in Role}
    assert bool(roles[Role.PROBE]) == (search != "optuna")
    assert len(roles[Role.CONFIRM]) == 4 and all(r.test_correct is not None for r in roles[Role.CONFIRM])
    assert all(r.test_correct is None for r in results if r.role is not Role.CONFIRM)
    for stop_after in (len(events) // 3, 2 * len(events) // 3):
        num_seen = 0

        def interrupt(event: object, stop_after: int = stop_after) -> None:
            nonlocal num_seen
            num_seen += 1
            if num_seen == stop_after:
                raise KeyboardInterrupt

        folder = tmp_path / f"stopped-{stop_after}"
        with pytest.raises(KeyboardInterrupt):
            welltuned.run(spec, folder, interrupt, options())
        welltuned.run(spec, folder, lambda event: None, options())
        same_rows(tmp_path / "whole", folder)


def test_the_report_of_a_search_misses_no_rerun_of_what_was_not_chosen(tmp_path: Path) -> None:
    study = welltuned.run(write_spec(tmp_path, "halving"), tmp_path / "study", lambda event: None, options())
    with Store.open(study.folder) as store:
        probes = [trial for trial in store.trials() if trial.role is Role.PROBE]
    page = study.report().read_text()
    assert probes and "No fresh-seed rerun" not in page
    assert study.declaration().budget == 4
