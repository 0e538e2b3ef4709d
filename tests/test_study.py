"""The loop: run, kill, resume, lose jobs, and come to the same end; and the public names that a notebook uses."""

import dataclasses
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import a_config
import welltuned
from small_study import fake_base
from welltuned.costs import packing
from welltuned.errors import InputError, MachineError, StoreError, WelltunedError
from welltuned.records import (
    Event,
    ExamJob,
    JobEnd,
    Outcome,
    Proposal,
    Result,
    Role,
    Status,
    SurveyJob,
    TrainJob,
    Trial,
)
from welltuned.store import Store
from welltuned.study import Note, Notice, Options, Planned, Started, Study, lost, preview
from welltuned.study.loop import _add, _settled

ENTRY = "fake_worker:run"
HERE = Path(__file__).parent
NUM_KILLS = 20
NUM_EVENTS = 200  # of the whole study, about


def _write_spec(folder: Path) -> Path:
    """Write a study of 2 methods x 2 batch sizes x 3 learning rates, one of which diverges, on a base of no weights."""
    base = fake_base(folder)
    file = folder / "study.toml"
    file.write_text(f"""
# as the user wrote it
name = "tiny"
[model]
base = "{base}"
[task]
task = "abacus"
num_train = 64
num_validation = 8
num_test = 8
max_length = 64
[train]
rank = 4
batch_size = 4
[axes]
method = ["lora", "pissa"]
batch_size = [2, 4]
learning_rate = [1e-3, 1e-2, 1.0]
[search]
fresh_seeds = 2
""")
    return file


@pytest.fixture
def spec_file(tmp_path: Path) -> Path:
    """Write a study."""
    return _write_spec(tmp_path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Study]:
    """Run a study without interruption; return its file too. Not to be written to."""
    folder = tmp_path_factory.mktemp("whole")
    spec = _write_spec(folder)
    return spec, _run(spec, folder / "study")[0]


@pytest.fixture
def moods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder in which a file tells the worker to misbehave once."""
    folder = tmp_path / "moods"
    folder.mkdir()
    monkeypatch.setenv("FAKE_MOODS", str(folder))
    return folder


def _options(memory_bytes: int = 2**31) -> Options:
    return Options(threads=1, memory_bytes=memory_bytes, entry=ENTRY)


def _run(spec: Path, folder: Path) -> tuple[Study, list[Event | Notice]]:
    seen: list[Event | Notice] = []
    return welltuned.run(spec, folder, seen.append, _options()), seen


def _bits(results: tuple[Result, ...]) -> list[Result]:
    """Return results without what the clock decides."""
    return [dataclasses.replace(result, seconds=0.0) for result in results]


# To the end -----------------------------------------------------------------------------------------------------------


def test_a_study_comes_to_its_end(spec_file: Path, tmp_path: Path) -> None:
    study, seen = _run(spec_file, tmp_path / "study")
    results = study.results()
    select = [result for result in results if result.role is Role.SELECT]
    confirm = [result for result in results if result.role is Role.CONFIRM]
    assert (len(select), len(confirm)) == (2 * 2 * 3, 2 * 2 * 2)
    assert sum(result.status is Status.DIVERGED for result in select) == 4
    assert {result.config.init_seed for result in confirm} == {1000, 1001}
    for winner in confirm:
        cell = [r for r in select if _cell(r) == _cell(winner) and r.status is Status.FINISHED]
        best = min(cell, key=lambda result: result.validation_nll or 0.0)
        assert winner.config.learning_rate == best.config.learning_rate
    assert all(result.test_correct is None for result in select)
    assert all(result.test_correct is not None for result in confirm)
    declaration = study.declaration()
    assert (declaration.name, declaration.num_lost, declaration.num_test_reads) == ("tiny", 0, 8)
    assert declaration.cell == ("method", "batch_size")
    assert (declaration.finished, declaration.num_planned) == (True, 20)
    assert declaration.environments == ('{"device": "cpu"}',)
    assert [survey.vocab_size for survey in declaration.surveys] == [100]
    assert "# as the user wrote it" in (tmp_path / "study" / "spec.toml").read_text()
    assert study.spec.text() == welltuned.Spec.load(spec_file).text()
    assert [type(notice) for notice in seen if isinstance(notice, Planned)] == [Planned]
    assert sum(isinstance(event, Outcome) for event in seen) == 20
    adapters = {result.adapter for result in results if result.adapter is not None}
    assert {file.name for file in (tmp_path / "study" / "blobs").iterdir()} == adapters


def _cell(result: Result) -> tuple[str, int]:
    return result.config.method, result.config.batch_size


def test_running_a_finished_study_again_runs_nothing(spec_file: Path, tmp_path: Path) -> None:
    study, _ = _run(spec_file, tmp_path / "study")
    before = study.results()
    again, seen = _run(spec_file, tmp_path / "study")
    assert again.results() == before
    assert [type(notice) for notice in seen] == [Planned]


def test_the_table_has_a_row_for_each_trial_and_what_varies_first(whole: tuple[Path, Study]) -> None:
    study = whole[1]
    table = welltuned.open(study.folder).table()
    assert len(table) == 20
    varying = ["method", "learning_rate", "batch_size", "init_seed", "order_seed"]
    assert list(table.columns[:7]) == ["trial_id", "role", *varying]
    assert table.columns.is_unique
    means = table[table["role"] == "confirm"].groupby("method")["test_accuracy"].mean()
    by_hand = [r.test_accuracy for r in study.results() if r.role is Role.CONFIRM and r.config.method == "lora"]
    assert means["lora"] == pytest.approx(sum(by_hand) / len(by_hand))


def test_a_spec_in_code_runs_the_same_trials(whole: tuple[Path, Study], tmp_path: Path) -> None:
    spec_file, from_file = whole
    spec = welltuned.Spec.load(spec_file)
    in_code = welltuned.run(spec, tmp_path / "code", options=_options())
    assert [result.trial_id for result in in_code.results()] == [result.trial_id for result in from_file.results()]


# Killed and resumed ---------------------------------------------------------------------------------------------------


def _start(spec: Path, folder: Path, entry: str, step_seconds: float) -> subprocess.Popen[bytes]:
    environment = {
        **os.environ,
        "FAKE_STEP_SECONDS": str(step_seconds),
        "PYTHONPATH": os.pathsep.join(map(str, sys.path)),
    }
    command = [sys.executable, str(HERE / "run_study.py"), str(spec), str(folder), entry]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )


def run_through_kills(spec: Path, folder: Path, entry: str, num_kills: int, longest_seconds: float) -> int:
    """Run a study to its end in a process that is killed (with its child) at random instants; return how many hit."""
    instants = random.Random(0)
    num_hits = 0
    for _ in range(num_kills):
        with _start(spec, folder, entry, 0.01) as process:
            try:
                process.wait(instants.uniform(0.1, longest_seconds))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                num_hits += 1
    with _start(spec, folder, entry, 0.0) as process:
        _, complaints = process.communicate(timeout=600)
    assert process.returncode == 0, complaints.decode()
    return num_hits


def same_rows(left: Path, right: Path) -> None:
    """Assert that two studies hold the same results and plans to the bit, but for what the clock decides."""
    with Store.open(left) as one, Store.open(right) as other:
        assert _bits(one.results()) == _bits(other.results())
        assert one.jobs() == other.jobs()
        assert one.trials() == other.trials()
        assert one.counts() == other.counts()
        assert one.num_test_reads() == other.num_test_reads()
        losses = [
            [e.train_losses for _, e in store.events("Outcome") if isinstance(e, Outcome)] for store in (one, other)
        ]
        assert losses[0] == losses[1]
        ends = [[job_id for job_id, _ in store.events("JobEnd")] for store in (one, other)]
        assert ends[0] == ends[1]


def test_killed_at_20_random_instants_and_resumed_equals_uninterrupted(
    whole: tuple[Path, Study], tmp_path: Path
) -> None:
    spec_file, study = whole
    num_hits = run_through_kills(spec_file, tmp_path / "killed", ENTRY, NUM_KILLS, 1.0)
    assert num_hits > 0
    same_rows(study.folder, tmp_path / "killed")


@pytest.mark.parametrize("stop_after", range(5, NUM_EVENTS, NUM_EVENTS // 9))
def test_stopped_after_any_event_and_resumed_equals_uninterrupted(
    whole: tuple[Path, Study], tmp_path: Path, stop_after: int
) -> None:
    """Unlike the random kills, these reach every phase: packs, reruns, exams."""
    spec_file, study = whole
    notes: list[str] = []
    num_seen = 0

    def interrupt(event: Event | Notice) -> None:
        nonlocal num_seen
        num_seen += 1
        if isinstance(event, Note):
            notes.append(event.text)
        elif num_seen == stop_after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        welltuned.run(spec_file, tmp_path / "stopped", interrupt, _options())
    assert "run the same command again to go on" in notes[-1]
    with Store.open(tmp_path / "stopped") as store:
        ended = {job_id for job_id, _ in store.events("JobEnd")}
    _, seen = _run(spec_file, tmp_path / "stopped")
    rerun = {notice.job.id for notice in seen if isinstance(notice, Started)}
    assert not rerun & ended
    same_rows(study.folder, tmp_path / "stopped")


def test_a_second_process_on_the_same_study_is_refused(spec_file: Path, tmp_path: Path) -> None:
    with _start(spec_file, tmp_path / "study", ENTRY, 0.5) as first:
        while not (tmp_path / "study" / "study.db").exists():
            time.sleep(0.01)
        with pytest.raises(StoreError, match=rf"process {first.pid} is running this study"):
            _run(spec_file, tmp_path / "study")
        os.killpg(first.pid, signal.SIGKILL)


# Lost to the machine --------------------------------------------------------------------------------------------------


def test_a_worker_that_is_killed_once_changes_no_result(whole: tuple[Path, Study], tmp_path: Path, moods: Path) -> None:
    spec_file, study = whole
    (moods / "kill").touch()
    killed, seen = _run(spec_file, tmp_path / "killed")
    assert killed.declaration().num_lost == 1
    assert any(isinstance(notice, Note) and "SIGKILL" in notice.text for notice in seen)
    assert _numbers(killed) == _numbers(study)


def _numbers(study: Study) -> set[tuple[object, ...]]:
    """Return what does not depend on how trials were packed; the fake worker's numbers do not."""
    return {(r.trial_id, r.role, r.validation_nll, r.test_correct, r.adapter) for r in study.results()}


def test_too_large_packs_become_smaller(whole: tuple[Path, Study], tmp_path: Path, moods: Path) -> None:
    spec_file, large = whole
    (moods / "large").write_text("3")  # rows of all trials together
    study, _ = _run(spec_file, tmp_path / "study")
    assert {r.status for r in study.results()} == {Status.FINISHED, Status.DIVERGED}
    assert all(result.num_pack <= 3 for result in study.results())
    assert _numbers(study) == _numbers(large)


def test_a_machine_that_trains_nothing_gives_up_without_scoring(spec_file: Path, tmp_path: Path, moods: Path) -> None:
    (moods / "large").write_text("0")
    study, seen = _run(spec_file, tmp_path / "study")
    results = study.results()
    assert {result.status for result in results} == {Status.LOST}
    assert all(result.validation_nll is None and result.test_correct is None for result in results)
    assert all("lost 4 times, the last time because the worker was ended by SIGKILL" in r.reason for r in results)
    assert any(isinstance(notice, Note) and "given up and not scored" in notice.text for notice in seen)


TRIALS = tuple(Trial(a_config.CONFIG.replace(init_seed=seed), Role.SELECT) for seed in range(4))


def test_a_lost_pack_is_retried_with_half_the_rows_then_half_the_trials_then_given_up() -> None:
    pack = packing.make_job(TRIALS, 2)
    (half_rows,) = lost.again(pack, 1, 1, TRIALS) or ()
    assert isinstance(half_rows, TrainJob)
    assert (half_rows.trials, half_rows.micro_rows) == (TRIALS, 1)
    left, right = lost.again(half_rows, 2, 2, TRIALS) or ()
    assert left.trials + right.trials == TRIALS
    assert lost.again(left, 3, 3, left.trials[1:]) is not None
    assert lost.again(left, 4, 4, left.trials) is None
    halved = lost.again(left, 4, 1, left.trials) or ()  # after three interruptions whose numbers were not repeated
    assert halved and all(part.id.endswith(".4") for part in halved)
    assert len({pack.id, half_rows.id, left.id, right.id}) == 4


def test_a_pack_that_reached_a_checkpoint_goes_on_from_it_first() -> None:
    pack = dataclasses.replace(packing.make_job(TRIALS, 2), resume="blob")
    assert lost.again(pack, 1, 1, TRIALS) == (pack,)
    (smaller,) = lost.again(pack, 2, 2, TRIALS) or ()
    assert isinstance(smaller, TrainJob)
    assert (smaller.micro_rows, smaller.resume) == (1, None)


def test_a_lost_exam_is_halved_and_keeps_its_adapters() -> None:
    job = ExamJob("exam", TRIALS, ("a", "b", "c", "d"), "test")
    parts = lost.again(job, 1, 1, TRIALS[1:]) or ()
    assert [part.adapters for part in parts if isinstance(part, ExamJob)] == [("b", "c"), ("d",)]


def test_a_trial_that_had_ended_is_not_told_again(spec_file: Path, tmp_path: Path) -> None:
    """A pack that goes on from an earlier point ends it once more; a progress line would count it twice."""
    ended: list[str] = []

    def interrupt(event: Event | Notice) -> None:
        if isinstance(event, Outcome):
            ended.append(event.trial_id)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        welltuned.run(spec_file, tmp_path / "study", interrupt, _options())
    study, seen = _run(spec_file, tmp_path / "study")
    told = [event.trial_id for event in seen if isinstance(event, Outcome)]
    assert sorted([*ended, *told]) == sorted(result.trial_id for result in study.results())


def test_a_pack_that_does_not_repeat_itself_starts_afresh(spec_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "study"

    def interrupt(event: Event | Notice) -> None:
        if isinstance(event, Outcome):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        welltuned.run(spec_file, folder, interrupt, _options())
    # As another machine, or another PyTorch, would have written it:
    with Store.open(folder, write=True) as store, store._connection as connection:
        connection.execute("UPDATE events SET body = replace(body, '\"num_steps\": 12', '\"num_steps\": 13')")
    study, seen = _run(spec_file, folder)
    notes = [notice.text for notice in seen if isinstance(notice, Note)]
    assert any("differs from the stored one" in note and "trying again with" in note for note in notes)
    assert len(study.results()) == 20


# Refusals -------------------------------------------------------------------------------------------------------------


def test_changed_weights_are_refused_on_resuming(spec_file: Path, tmp_path: Path) -> None:
    _run(spec_file, tmp_path / "study")
    (tmp_path / "base" / "model.safetensors").write_bytes(b"other weights")
    with pytest.raises(
        StoreError, match=r"changed since the study began: base .* put the old one back, or run in another"
    ):
        _run(spec_file, tmp_path / "study")


def test_a_changed_spec_is_refused(spec_file: Path, tmp_path: Path) -> None:
    _run(spec_file, tmp_path / "study")
    spec_file.write_text(spec_file.read_text().replace("rank = 4", "rank = 2"))
    with pytest.raises(
        StoreError, match=r"got a spec with hash \w{16}, expected \w{16}, of which this folder was made"
    ):
        _run(spec_file, tmp_path / "study")


@pytest.mark.parametrize(
    ("mood", "kind"), [("machine", MachineError), ("input", InputError), ("crash", WelltunedError)]
)
def test_an_error_in_the_worker_ends_the_run_and_the_next_goes_on(
    whole: tuple[Path, Study], tmp_path: Path, moods: Path, mood: str, kind: type[WelltunedError]
) -> None:
    spec_file, study = whole
    (moods / mood).touch()
    with pytest.raises(kind):
        _run(spec_file, tmp_path / "study")
    _run(spec_file, tmp_path / "study")
    same_rows(study.folder, tmp_path / "study")


def test_a_missing_study_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected a folder with a study\.db; check the path, or run a study first"):
        welltuned.open(tmp_path / "nowhere")


def test_a_base_whose_survey_is_lost_is_named(spec_file: Path, tmp_path: Path, moods: Path) -> None:
    (moods / "survey").touch()
    said = r"base .*: the worker that looked at it was lost \(.*SIGKILL.*\); free some memory and run again"
    with pytest.raises(MachineError, match=said):
        _run(spec_file, tmp_path / "study")
    with pytest.raises(StoreError, match=r"got a study without a plan, expected one; run it first"):
        Study(tmp_path / "study").declaration()


def test_grading_that_never_fits_stops_the_run_and_loses_nothing(
    whole: tuple[Path, Study], tmp_path: Path, moods: Path
) -> None:
    spec_file, study = whole
    for attempt in range(8):
        (moods / f"exam-{attempt}").touch()
    with pytest.raises(
        MachineError, match=r"grading 1 adapter: the worker was lost 4 times, .* free some memory and run"
    ):
        _run(spec_file, tmp_path / "study")
    assert not Study(tmp_path / "study").declaration().finished
    for mood in moods.iterdir():
        mood.unlink()
    assert _numbers(_run(spec_file, tmp_path / "study")[0]) == _numbers(study)


def test_a_search_that_wants_nothing_is_a_defect(spec_file: Path, tmp_path: Path) -> None:
    plan = preview(welltuned.Spec.load(spec_file), _options())
    with (
        Store.create(tmp_path / "study", "", "", "") as store,
        pytest.raises(WelltunedError, match="search 'grid' wants nothing and says that it is not finished"),
    ):
        _add(Proposal((), (), False), plan, store, 2**31, "cpu")


# Planning and names ---------------------------------------------------------------------------------------------------


def test_a_preview_makes_no_folder_and_surveys_only_once(spec_file: Path, tmp_path: Path) -> None:
    spec = welltuned.Spec.load(spec_file)
    before = sorted(tmp_path.iterdir())
    seen: list[Event | Notice] = []
    first = preview(spec, _options(), seen.append)
    assert any(isinstance(event, JobEnd) for event in seen)
    seen.clear()
    assert preview(spec, _options(), seen.append) == first
    assert seen == []
    assert sorted(tmp_path.iterdir()) == before


def test_threads_and_memory_are_settled_when_the_study_begins(spec_file: Path, tmp_path: Path) -> None:
    default = Options(entry=ENTRY)
    welltuned.run(spec_file, tmp_path / "other", options=default)
    with Store.open(tmp_path / "other") as store:
        assert store.fact("threads") == str(default.new_threads())
        assert int(store.fact("memory_bytes") or 0) > 0
    with Store.create(tmp_path / "other", "", "", Study(tmp_path / "other").declaration().spec_hash) as store:
        assert _settled(store, "threads", None, lambda: 99) == default.new_threads()
        assert _settled(store, "threads", 7, lambda: 99) == 7


def test_the_public_names_are_there_and_importing_loads_nothing_heavy() -> None:
    program = (
        "import sys, welltuned; heavy = {'torch', 'numpy', 'pandas', 'pydantic'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "from welltuned import Spec, open, run\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules\n"
        "assert {'Spec', 'Study', 'load_adapter', 'open', 'run'} <= set(dir(welltuned))\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, sys.path))}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)
    with pytest.raises(AttributeError, match="module 'welltuned' has no attribute 'runn'"):
        _ = welltuned.runn


def test_started_names_the_job(spec_file: Path, tmp_path: Path) -> None:
    _, seen = _run(spec_file, tmp_path / "study")
    jobs = [notice.job for notice in seen if isinstance(notice, Started)]
    assert not any(isinstance(job, SurveyJob) for job in jobs)
    with Store.open(tmp_path / "study") as store:
        assert [job.id for job in jobs] == [job.id for job in store.jobs()]


# With the real worker -------------------------------------------------------------------------------------------------

REAL_SPEC = """
name = "real"
[model]
base = "abacus-small"
[task]
task = "abacus"
num_train = 128
num_validation = 32
num_test = 16
max_length = 160
[train]
rank = 4
[axes]
method = ["lora", "pissa"]
batch_size = [8, 16]
learning_rate = [1e-3, 1e-2]
[search]
fresh_seeds = 1
"""


@pytest.mark.slow
def test_the_real_worker_killed_and_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    spec = tmp_path / "study.toml"
    spec.write_text(REAL_SPEC)
    begin = time.monotonic()
    with _start(spec, tmp_path / "whole", "welltuned.worker:run", 0.0) as process:
        _, complaints = process.communicate(timeout=300)
    assert process.returncode == 0, complaints.decode()
    longest_seconds = time.monotonic() - begin
    num_hits = run_through_kills(spec, tmp_path / "killed", "welltuned.worker:run", 5, longest_seconds / 2)
    assert num_hits > 0
    same_rows(tmp_path / "whole", tmp_path / "killed")
