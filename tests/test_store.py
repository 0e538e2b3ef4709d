"""The store: what goes in comes out to the bit, repeats are no-ops, one writer, and every refusal says what to do."""

import dataclasses
import errno
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

import a_config
import fake_worker
from welltuned import records
from welltuned.errors import InputError, MachineError, StoreError, WelltunedError
from welltuned.records import (
    Checkpoint,
    ExamJob,
    Graded,
    JobEnd,
    JobLost,
    Outcome,
    Point,
    Role,
    Status,
    TrainJob,
    Trial,
)
from welltuned.store import DifferingEvent, Store, blobs, codec, locks, schema

TRIALS = tuple(Trial(a_config.CONFIG.replace(learning_rate=rate), Role.SELECT) for rate in (1e-3, 1 / 3 * 1e-2, 0.1))
PACK = TrainJob("pack", TRIALS, 4, compiled=True, recompute=True)
GOLDEN = Path(__file__).parent / "golden" / "store_v1"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a path for a study folder that does not exist yet."""
    return tmp_path / "study"


def _create(folder: Path, spec_hash: str = "hash") -> Store:
    return Store.create(folder, "demo", "canonical text", spec_hash, "# as written")


def _outcome(trial: Trial, status: Status = Status.FINISHED, adapter: str | None = None) -> Outcome:
    return Outcome(trial.id, status, "", 8, 64, 640, 1.5, 4.5, 0.25, 1 / 3, adapter, (0.1, 0.2), 128)


def _fill(store: Store) -> None:
    """Put one finished, one diverged and one open trial in, with an exam."""
    store.append(dataclasses.replace(fake_worker.SURVEY, config_key="key"), "key")
    store.append(JobEnd("key", 0.5, 100, '{"device": "cpu"}'), "key")
    store.add_jobs([PACK])
    adapter = blobs.write(store.blobs, b"adapter")
    for step in (0, 8):
        for trial in TRIALS:
            train_loss = None if step == 0 else 0.7
            store.append(Point(trial.id, step, 8 * step, 80 * step, 1e-3, train_loss, 3.0 - step / 7), "pack")
    store.append(Checkpoint("pack", 4, blobs.write(store.blobs, b"checkpoint")), "pack")
    store.append(_outcome(TRIALS[0], adapter=adapter), "pack")
    store.append(_outcome(TRIALS[1], Status.DIVERGED), "pack")
    winner = dataclasses.replace(TRIALS[0], role=Role.CONFIRM)
    store.add_trials([winner])
    store.freeze([winner])
    store.log_test_read("data", [winner])
    store.add_jobs([ExamJob("exam", (winner,), (adapter,), "test")])
    store.append(Graded(winner.id, "test", (True, False, True), 30, 0.5), "exam")
    store.append(JobEnd("exam", 0.5, 100, '{"device": "cpu"}'), "exam")


# Round trips ----------------------------------------------------------------------------------------------------------

EVENTS = (
    fake_worker.SURVEY,
    Point("t", 3, 24, 240, 1e-3, 0.1 + 0.2, None),
    Checkpoint("p", 3, "blob"),
    _outcome(TRIALS[0], Status.DIVERGED),
    Graded("t", "test", (True, False), 10, 0.1),
    JobEnd("p", 1.0, 2, "{}"),
    JobLost("p", "killed"),
)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_events_come_back_to_the_bit(event: records.Event) -> None:
    row = codec.encode(event)
    assert codec.decode(row.kind, row.body, row.measured) == event


def test_a_number_that_is_not_finite_is_refused() -> None:
    with pytest.raises(WelltunedError, match=r"event Point t/3: got a number that is not finite, expected .* None"):
        codec.encode(Point("t", 3, 24, 240, 1e-3, float("nan"), None))


def test_progress_is_never_stored() -> None:
    with pytest.raises(WelltunedError, match="for the screen and is never stored"):
        codec.encode(records.Progress("p", 0.5, 1.0))


def test_results_hold_what_was_appended(folder: Path) -> None:
    with _create(folder) as store:
        _fill(store)
    with Store.open(folder) as store:
        finished, diverged, confirmed = store.results()
        counts = store.counts()
        assert (store.name, store.spec_text, store.spec_hash) == ("demo", "canonical text", "hash")
        assert store.surveys() == {"key": dataclasses.replace(fake_worker.SURVEY, config_key="key")}
        assert (store.num_test_reads(), store.num_lost(), store.environments()) == (1, 0, ('{"device": "cpu"}',))
    assert finished.config == TRIALS[0].config
    assert (finished.status, diverged.status) == (Status.FINISHED, Status.DIVERGED)
    assert [point.step for point in finished.curve] == [0, 8]
    assert (finished.base_validation_nll, finished.validation_nll, finished.num_pack) == (3.0, 1 / 3, 3)
    assert finished.test_correct is None
    assert confirmed.test_correct == (True, False, True)
    assert confirmed.test_accuracy == 2 / 3
    assert (counts.num_trials, counts.num_finished, counts.num_diverged, counts.num_open) == (4, 2, 1, 1)
    assert (counts.num_jobs, counts.num_jobs_open, counts.num_graded) == (2, 1, 1)
    assert (folder / "spec.toml").read_text() == "# as written"


# Append-only ----------------------------------------------------------------------------------------------------------


def test_a_repeated_event_changes_nothing_even_if_its_clock_differs(folder: Path) -> None:
    with _create(folder) as store:
        store.add_jobs([PACK])
        store.append(_outcome(TRIALS[0]), "pack")
        before = store.results()
        store.append(dataclasses.replace(_outcome(TRIALS[0]), seconds=99.0, pack_seconds=99.0), "pack")
        assert store.results() == before


def test_a_differing_event_is_refused_and_the_first_stays(folder: Path) -> None:
    with _create(folder) as store:
        store.add_jobs([PACK])
        store.append(_outcome(TRIALS[0]), "pack")
        before = store.results()
        with pytest.raises(DifferingEvent, match=r"job pack: got Outcome .* differs from the stored one.*folder"):
            store.append(dataclasses.replace(_outcome(TRIALS[0]), validation_nll=0.5), "pack")
        assert store.results() == before


def test_a_pack_resumes_from_its_last_checkpoint_and_older_ones_are_deleted(folder: Path) -> None:
    with _create(folder) as store:
        store.add_jobs([PACK])
        assert store.open_jobs() == (PACK,)
        names = [blobs.write(store.blobs, f"checkpoint {step}".encode()) for step in range(3)]
        for step, name in enumerate(names):
            assert blobs.path(store.blobs, name).is_file()
            store.append(Checkpoint("pack", step, name), "pack")
            assert store.open_jobs() == (dataclasses.replace(PACK, resume=name),)
        assert [file.name for file in store.blobs.iterdir()] == [names[-1]]
        adapter = blobs.write(store.blobs, b"adapter")
        store.append(_outcome(TRIALS[0], adapter=adapter), "pack")
        store.append(JobEnd("pack", 1.0, 1, "{}"), "pack")
        assert store.open_jobs() == ()
        assert [file.name for file in store.blobs.iterdir()] == [adapter]


def test_opening_for_writing_sweeps_what_nothing_refers_to(folder: Path) -> None:
    with _create(folder) as store:
        _fill(store)
        used = {file.name for file in store.blobs.iterdir()}
        blobs.write(store.blobs, b"written, then killed before its event was stored")
        (store.blobs / f"half{blobs.UNFINISHED}").write_bytes(b"half")
        (store.blobs / "notes.txt").write_text("the user's own")
    with _create(folder) as store:
        assert {file.name for file in store.blobs.iterdir()} == {*used, "notes.txt"}


def test_a_lost_pack_is_closed_by_what_replaces_it(folder: Path) -> None:
    with _create(folder) as store:
        store.add_jobs([PACK])
        store.append(Point(TRIALS[0].id, 0, 0, 0, 1e-3, None, 3.0), "pack")
        store.append(JobLost("pack", "killed"), "pack")
        store.append(JobLost("pack", "its numbers differ", differs=True), "pack")
        assert (store.num_losses("pack"), store.num_losses("pack", failures_only=True)) == (2, 1)
        smaller = dataclasses.replace(PACK, id="smaller", micro_rows=2)
        store.add_jobs([smaller], replaces="pack", reason="lost")
        assert store.open_jobs() == (smaller,)
        assert store.num_lost() == 2
        store.append(Point(TRIALS[0].id, 0, 0, 0, 1e-3, None, 3.5), "smaller")
        store.append(_outcome(TRIALS[0]), "smaller")
        assert [point.validation_nll for point in store.results()[0].curve] == [3.5]


# One writer, the right folder -----------------------------------------------------------------------------------------


def test_a_second_writer_is_refused_with_the_first_ones_process(folder: Path) -> None:
    said = rf"process {os.getpid()} is running this study; wait for it, or stop it \(kill -INT"
    with _create(folder), pytest.raises(StoreError, match=said):
        _create(folder)
    with _create(folder):
        pass


def test_a_second_process_is_refused_and_a_reader_is_not(folder: Path) -> None:
    program = (
        "import sys, pathlib; from welltuned.store import Store\n"
        "Store.create(pathlib.Path(sys.argv[1]), 'a', 'b', 'hash')"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, sys.path))}
    with _create(folder) as store:
        _fill(store)
        second = subprocess.run(
            [sys.executable, "-c", program, str(folder)], env=environment, capture_output=True, text=True, check=False
        )
        with Store.open(folder) as reader:
            assert reader.results() == store.results()
    assert f"process {os.getpid()} is running this study" in second.stderr


def test_a_folder_of_another_spec_is_refused(folder: Path) -> None:
    _create(folder).close()
    with pytest.raises(StoreError, match=r"got a spec with hash other, expected hash.*or run the original"):
        _create(folder, "other")
    _create(folder).close()  # the refusal left no lock behind


def test_a_newer_schema_is_refused(folder: Path) -> None:
    _create(folder).close()
    connection = sqlite3.connect(folder / "study.db")
    connection.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    connection.close()
    for opening in (lambda: _create(folder), lambda: Store.open(folder)):
        with pytest.raises(StoreError, match=r"got schema version 2, expected at most 1; .* upgrade this one"):
            opening()


def test_a_missing_folder_is_named(folder: Path) -> None:
    with pytest.raises(InputError, match=r"study folder: got '.*study', expected a folder with a study.db; check"):
        Store.open(folder)


def test_an_empty_database_is_named_and_can_be_filled(folder: Path) -> None:
    folder.mkdir()
    (folder / "study.db").touch()
    with pytest.raises(StoreError, match=r"got an empty study.db, expected a study; run the study again"):
        Store.open(folder)
    _create(folder).close()


def test_a_damaged_database_is_named(folder: Path) -> None:
    folder.mkdir()
    (folder / "study.db").write_bytes(b"no database" * 1000)
    with pytest.raises(StoreError, match=r"got a damaged study.db .*restore it from a copy"):
        _create(folder)


def test_a_file_in_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "study").write_text("a file")
    with pytest.raises(StoreError, match=r"expected a folder that can be written; choose another one"):
        _create(tmp_path / "study")


def test_a_network_filesystem_is_refused(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    share = tmp_path / "a share"
    share.mkdir()
    mounts.write_text(f"disk / ext4 rw 0 0\nserver:/x {str(share).replace(' ', chr(92) + '040')} nfs4 rw 0 0\n")
    locks.refuse_network(tmp_path, mounts)
    with pytest.raises(StoreError, match=r"got a network filesystem \(nfs4\), expected a local disk.*local folder"):
        locks.refuse_network(share / "study", mounts)


# Test data ------------------------------------------------------------------------------------------------------------


def test_the_test_split_needs_a_freeze_record_of_the_very_role(folder: Path) -> None:
    confirm = dataclasses.replace(TRIALS[0], role=Role.CONFIRM)
    with _create(folder) as store:
        store.add_jobs([PACK])
        store.add_trials([confirm])
        store.freeze([TRIALS[0]])
        with pytest.raises(StoreError, match=rf"test data: got trial {confirm.id} without a freeze record.*freeze"):
            store.log_test_read("data", [confirm])
        assert store.num_test_reads() == 0
        store.freeze([confirm])
        store.log_test_read("data", [confirm])
        store.log_test_read("data", [confirm])  # an exam that is resumed
        assert store.num_test_reads() == 1


# Disk -----------------------------------------------------------------------------------------------------------------


def test_a_full_disk_on_writing_a_blob_leaves_no_half_file(tmp_path: Path) -> None:
    def full(path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(MachineError, match=r"No space left on device' on writing, expected free disk space; free some"):
        blobs.write(tmp_path, full)
    assert list(tmp_path.iterdir()) == []


LIMITED = """
import resource, signal, sys
from pathlib import Path
import torch
from safetensors.torch import save_file
from welltuned.errors import MachineError
from welltuned.packing import starts
from welltuned.store import blobs

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
folder = Path(sys.argv[1])
state = starts._kept(folder / "a.safetensors", torch.device("cpu"), lambda: {"A0": torch.ones(10_000)})
assert state["A0"].shape == (10_000,) and not list(folder.glob("a*"))
try:
    blobs.write(folder, lambda path: save_file({"a": torch.ones(10_000)}, path))
except MachineError as error:
    print(error)
"""


def test_what_safetensors_says_of_a_full_disk_is_a_full_disk(tmp_path: Path) -> None:
    """Its errors are no OSErrors. A start that cannot be kept is used all the same."""
    done = subprocess.run([sys.executable, "-c", LIMITED, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (
        "got '[Errno 27] File too large' on writing, expected free disk space; free some and run again" in done.stdout
    )
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_on_an_event_loses_nothing(folder: Path) -> None:
    with _create(folder) as store:
        _fill(store)
        before = store.results()
        pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
        store._connection.execute(f"PRAGMA max_page_count = {pages}")  # SQLite's own way to a full disk
        with pytest.raises(MachineError, match=r"database or disk is full.*free some and run again: nothing"):
            for step in range(9, 5000):
                store.append(Point(TRIALS[2].id, step, 0, 0, 1e-3, 0.5, 0.5), "pack")
        assert store.results() == before
    with _create(folder) as store:
        assert store.results() == before
        store.append(_outcome(TRIALS[2]), "pack")
        assert len(store.results()) == 4


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("mount") is None, reason="mounting a tiny disk needs root")
def test_a_tiny_disk_that_fills_up(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=512k", "none", disk]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("this machine does not let root mount")
    try:
        with _create(disk / "study") as store:
            _fill(store)
            before = store.results()
            with pytest.raises(MachineError, match="free disk space"):
                blobs.write(store.blobs, os.urandom(1 << 20))
            with pytest.raises(MachineError, match="free disk space"):
                for step in range(9, 5000):
                    store.append(Point(TRIALS[2].id, step, 0, 0, 1e-3, 0.5, 0.5), "pack")
            stored = len(list(store.events()))
            assert store.results() == before
        with Store.open(disk / "study") as store:
            assert store.results() == before
            assert len(list(store.events())) == stored
    finally:
        subprocess.run(["umount", disk], check=True)


def test_blobs_are_named_by_content(tmp_path: Path) -> None:
    name = blobs.write(tmp_path, b"content")
    assert blobs.write(tmp_path, lambda path: path.write_bytes(b"content") and None) == name
    assert blobs.path(tmp_path, name).read_bytes() == b"content"
    with pytest.raises(StoreError, match=r"blob 00.safetensors: got no such file in .*restore it from a copy"):
        blobs.path(tmp_path, "00.safetensors")


# For ever -------------------------------------------------------------------------------------------------------------


def test_the_golden_store_of_version_1_opens(tmp_path: Path) -> None:
    shutil.copytree(GOLDEN, tmp_path / "study")
    expected = json.loads((GOLDEN / "expected.json").read_text())
    for row in expected:  # settings that came later have the value that changes nothing
        row["config"] = dataclasses.asdict(records.Config.parse(json.dumps(row["config"])))
        row["config"] = json.loads(json.dumps(row["config"]))
    with Store.open(tmp_path / "study") as store:
        assert json.loads(json.dumps([dataclasses.asdict(result) for result in store.results()])) == expected
        assert [job.id for job in store.open_jobs()] == ["pack"]
        assert store.num_test_reads() == 1
        assert list(store.surveys()) == ["key"]


def make_golden(folder: Path = GOLDEN) -> None:
    """Write the golden store anew; only for a new schema version, never over an old one."""
    with _create(folder) as store:
        _fill(store)
        rows = [dataclasses.asdict(result) for result in store.results()]
    (folder / "study.lock").unlink()
    (folder / "expected.json").write_text(json.dumps(rows, indent=1))
