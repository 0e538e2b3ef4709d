"""The study folder: study.db (SQLite, one writer, append-only), blobs/, spec.toml as the user wrote it, report/.

Everything that a study knows passes through here: resuming is opening the store and going on. What is stored when:
a job's plan before it runs, an event as it arrives, a freeze record before the test data is read, the verdict before
the test data may be read for anything but frozen finalists.
"""

import dataclasses
import json
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TextIO

from welltuned.errors import InputError, StoreError, WelltunedError, problem
from welltuned.records import (
    ORACLE,
    Checkpoint,
    Comparison,
    Config,
    Event,
    ExamJob,
    Graded,
    JobEnd,
    JobLost,
    Point,
    Result,
    Retained,
    RetentionJob,
    Role,
    StoredJob,
    Survey,
    TrainJob,
    Trial,
)
from welltuned.store import blobs, codec, history, locks, schema, verdict

DATABASE = "study.db"
BUSY_SECONDS = 30.0  # assumed: how long to wait for another process that is reading


class Store:
    """An open study folder. Make one with `Store.create` or `Store.open`, and close it (or use `with`)."""

    def __init__(self, folder: Path, connection: sqlite3.Connection, lock: TextIO | None) -> None:
        self.folder = folder
        self.blobs = folder / "blobs"
        self._connection = connection
        self._lock = lock
        meta = dict(connection.execute("SELECT key, value FROM meta"))
        self.name: str = meta["name"]
        self.spec_hash: str = meta["spec_hash"]
        self.spec_text: str = meta["spec_text"]

    @staticmethod
    def create(folder: Path, name: str, spec_text: str, spec_hash: str, source: str | None = None) -> "Store":
        """Open the folder's study for writing, or make it where there is none.

        `spec_text` is canonical, `source` is what the user wrote. A study made from another spec is refused.
        """
        locks.refuse_network(folder)
        with locks.disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            lock = locks.take(folder)
        try:
            connection = _connect(folder, write=True)
            with locks.disk_errors(folder):
                if schema.version_of(connection) == 0:
                    schema.make(connection, {"name": name, "spec_hash": spec_hash, "spec_text": spec_text})
                    (folder / "spec.toml").write_text(source or spec_text)
            store = Store(folder, connection, lock)
        except BaseException:
            lock.close()
            raise
        if store.spec_hash != spec_hash:
            store.close()
            raise StoreError(
                f"study folder {folder}: got a spec with hash {spec_hash}, expected {store.spec_hash}, of which this "
                f"folder was made; choose another folder, or run the original file ({folder / 'spec.toml'})"
            )
        blobs.sweep(store.blobs, store._blobs_in_use())
        return store

    @staticmethod
    def open(folder: Path, write: bool = False) -> "Store":
        """Open an existing study, for reading unless `write`."""
        if not (folder / DATABASE).is_file():
            expected = f"a folder with a {DATABASE}"
            raise InputError(problem("study folder", str(folder), expected, "check the path, or run a study first"))
        lock = None
        if write:
            locks.refuse_network(folder)
            with locks.disk_errors(folder):
                lock = locks.take(folder)
        try:
            connection = _connect(folder, write)
            if schema.version_of(connection) == 0:
                connection.close()
                raise StoreError(
                    f"study folder {folder}: got an empty {DATABASE}, expected a study; run the study again to make it"
                )
            if not write:
                connection.execute("BEGIN")  # a reader sees one moment of a study that goes on, until it closes
            return Store(folder, connection, lock)
        except BaseException:
            if lock is not None:
                lock.close()
            raise

    def close(self) -> None:
        """Close the file, leaving it whole in one piece, and let the next writer in."""
        if self._lock is not None:
            try:
                self._connection.execute("PRAGMA journal_mode = DELETE")
            except sqlite3.OperationalError:
                self._connection.rollback()  # a reader or a full disk is in the way: the next opening reads the log too
        self._connection.close()
        if self._lock is not None:
            locks.release(self._lock)

    def __enter__(self) -> "Store":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # Writing ----------------------------------------------------------------------------------------------------------

    def add_jobs(self, jobs: Sequence[StoredJob], replaces: str | None = None, reason: str = "") -> None:
        """Store the plans of jobs before they run.

        `replaces` closes a lost job in the same breath, with nothing in its place where `jobs` is empty.
        """
        with locks.disk_errors(self.folder), self._connection as connection:
            for job in jobs:
                for trial in job.trials:
                    connection.execute(
                        "INSERT OR IGNORE INTO trials (id, role, config) VALUES (?, ?, ?)",
                        (trial.id, trial.role, trial.config.text()),
                    )
                connection.execute(
                    "INSERT INTO jobs (id, kind, plan, replaces) VALUES (?, ?, ?, ?)",
                    (job.id, type(job).__name__, _plan_text(job), replaces),
                )
            if replaces is not None:
                connection.execute("INSERT INTO closures VALUES (?, ?)", (replaces, reason))

    def add_trials(self, trials: Sequence[Trial]) -> None:
        """Store trials before there is a job for them, or without: a rerun may equal a trial that is finished."""
        with locks.disk_errors(self.folder), self._connection as connection:
            connection.executemany(
                "INSERT OR IGNORE INTO trials (id, role, config) VALUES (?, ?, ?)",
                [(trial.id, trial.role, trial.config.text()) for trial in trials],
            )

    def append(self, event: Event, job_id: str) -> bool:
        """Store an event of a job; say whether it was new.

        An identical repeat changes nothing; a differing one raises DifferingEvent.
        """
        row = codec.encode(event)
        if isinstance(event, JobLost):  # a job can be lost more than once
            row = dataclasses.replace(row, identity=str(self._num_lost(job_id)))
        # A point needs no sync of its own: that of the next checkpoint covers it, and what a power cut takes
        # from before it is emitted again on resuming.
        self._connection.execute(f"PRAGMA synchronous = {'NORMAL' if isinstance(event, Point) else 'FULL'}")
        with locks.disk_errors(self.folder), self._connection as connection:
            key = (job_id, row.kind, row.identity)
            found = connection.execute(
                "SELECT body FROM events WHERE job_id = ? AND kind = ? AND identity = ?", key
            ).fetchone()
            if found is None:
                connection.execute(
                    "INSERT INTO events (job_id, kind, identity, body, measured) VALUES (?, ?, ?, ?, ?)",
                    (*key, row.body, row.measured),
                )
        if found is not None and found[0] != row.body:
            raise codec.DifferingEvent(
                f"job {job_id}: got {row.kind} {row.identity} that differs from the stored one, expected the same bits "
                "on repeating it; the machine or a package changed since: keep both as they were, or use another folder"
            )
        if isinstance(event, Checkpoint | JobEnd) and found is None:
            self._drop_checkpoints(job_id)
        return found is None

    def settle(self, key: str, value: str) -> str:
        """Store a fact of the study unless it is known, and return what is known from now on."""
        with locks.disk_errors(self.folder), self._connection as connection:
            connection.execute("INSERT OR IGNORE INTO meta VALUES (?, ?)", (key, value))
        found = self.fact(key)
        return value if found is None else found

    def freeze(self, trials: Sequence[Trial]) -> None:
        """Record that these trials' configurations are final, which the test data may be read for."""
        with locks.disk_errors(self.folder), self._connection as connection:
            connection.executemany(
                "INSERT OR IGNORE INTO freezes VALUES (?, ?)", [(trial.id, trial.role) for trial in trials]
            )

    def log_test_read(self, items: str, trials: Sequence[Trial]) -> None:
        """Log that the test data is about to be read for these trials; refused for one that is not frozen.

        `items` names the test set (`ledger.items_key`).
        """
        frozen = set(self._connection.execute("SELECT trial_id, role FROM freezes"))
        for trial in trials:
            if (trial.id, str(trial.role)) not in frozen:
                raise StoreError(
                    f"test data: got trial {trial.id} without a freeze record, expected a frozen configuration, since "
                    "the test split is read once, after selection; freeze the trial first"
                )
        self._log_read(items, trials)

    def log_oracle_read(self, items: str, trials: Sequence[Trial]) -> None:
        """Log that the test data is about to be read for trials that were not selected; refused before the verdict."""
        self.require_verdict()
        self._log_read(items, trials)

    def require_verdict(self) -> Comparison:
        """Return the stored verdict; raise StoreError where there is none."""
        found = self.comparison()
        if found is None:
            raise StoreError(
                f"oracle pass: got no stored verdict in {self.folder}, expected one, since nothing but the frozen "
                "finalists may be scored on the test data before it; run welltuned compare without --oracle first"
            )
        return found

    def store_verdict(self, found: Comparison) -> Comparison:
        """Store the verdict unless there is one, and return what is stored from now on."""
        return verdict.decode(self.settle("verdict", verdict.encode(found)))

    # Reading ----------------------------------------------------------------------------------------------------------

    def num_rows(self) -> int:
        """Count the rows of all tables. None is ever removed, so the count grows with every change."""
        tables = [name for (name,) in self._connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return sum(int(self._connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0]) for name in tables)

    def holder(self) -> int | None:
        """Return the id of the process that runs the study now, None where none of this machine does."""
        return locks.holder(self.folder)

    def fact(self, key: str) -> str | None:
        """Return a fact that was settled, None where it was not."""
        found = self._connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if found is None else str(found[0])

    def comparison(self) -> Comparison | None:
        """Return the stored verdict, None where there is none yet."""
        found = self.fact("verdict")
        return None if found is None else verdict.decode(found)

    def trials(self) -> tuple[Trial, ...]:
        """Return every trial known so far, in the order in which they were planned."""
        rows = self._connection.execute("SELECT role, config FROM trials ORDER BY sequence")
        return tuple(Trial(Config.parse(config), Role(role)) for role, config in rows)

    def jobs(self) -> tuple[StoredJob, ...]:
        """Return every job planned so far."""
        return tuple(self._jobs())

    def open_jobs(self) -> tuple[StoredJob, ...]:
        """Return the jobs to be run or gone on with; a pack resumes from its last checkpoint."""
        closed = {job_id for (job_id,) in self._connection.execute("SELECT job_id FROM closures")}
        closed |= {job_id for (job_id,) in self._connection.execute("SELECT job_id FROM events WHERE kind = 'JobEnd'")}
        resumes = {job_id: event.blob for job_id, event in self.events("Checkpoint") if isinstance(event, Checkpoint)}
        return tuple(
            dataclasses.replace(job, resume=resumes.get(job.id)) if isinstance(job, TrainJob) else job
            for job in self._jobs()
            if job.id not in closed
        )

    def events(self, *kinds: str) -> Iterator[tuple[str, Event]]:
        """Yield (job id, event) of some kinds (all where none is named), in the order in which they happened."""
        rows = self._connection.execute("SELECT job_id, kind, body, measured FROM events ORDER BY sequence")
        for job_id, kind, body, measured in rows:
            if not kinds or kind in kinds:
                yield job_id, codec.decode(kind, body, measured)

    def results(self) -> tuple[Result, ...]:
        """Return the result of every trial that has ended."""
        return history.results(self.trials(), self.jobs(), self.events("Point", "Outcome", "Graded"))

    def retained(self) -> tuple[Retained, ...]:
        """Return what was measured of forgetting."""
        return tuple(event for _, event in self.events("Retained") if isinstance(event, Retained))

    def oracle(self) -> dict[str, tuple[bool, ...]]:
        """Return the graded test answers of trials that were not selected, which are never part of a result."""
        found = (event for _, event in self.events("Graded") if isinstance(event, Graded))
        return {event.trial_id: event.correct for event in found if event.split == ORACLE}

    def surveys(self) -> dict[str, Survey]:
        """Return the stored surveys by key."""
        return {event.config_key: event for _, event in self.events("Survey") if isinstance(event, Survey)}

    def counts(self) -> history.Counts:
        """Count trials and jobs by their state."""
        num_open = len(self.open_jobs())
        return history.count(self.results(), self.trials(), len(self.jobs()), num_open, self.num_lost())

    def num_lost(self) -> int:
        """Count the times that a job was lost to the machine."""
        return int(self._connection.execute("SELECT count(*) FROM events WHERE kind = 'JobLost'").fetchone()[0])

    def ended(self, job_id: str) -> set[str]:
        """Return the trials that this job brought to their end, graded or measured."""
        query = "SELECT body FROM events WHERE job_id = ? AND kind IN ('Outcome', 'Graded', 'Retained')"
        return {str(json.loads(body)["trial_id"]) for (body,) in self._connection.execute(query, (job_id,))}

    def num_losses(self, job_id: str, failures_only: bool = False) -> int:
        """Count the times that a job and those that it replaces were lost; or those at which the machine failed."""
        found = self._connection.execute("SELECT replaces FROM jobs WHERE id = ?", (job_id,)).fetchone()
        earlier = 0 if found is None or found[0] is None else self.num_losses(found[0], failures_only)
        return earlier + self._num_lost(job_id, failures_only)

    def num_test_reads(self) -> int:
        """Count the frozen configurations that the test data was read for; an oracle pass is no part of it."""
        query = "SELECT count(DISTINCT trial_id) FROM test_reads WHERE trial_id IN (SELECT trial_id FROM freezes)"
        return int(self._connection.execute(query).fetchone()[0])

    def test_reads(self) -> dict[str, set[str]]:
        """Return the trials that each test set was read for, in an oracle pass too."""
        found: dict[str, set[str]] = {}
        for items, trial_id in self._connection.execute("SELECT data_hash, trial_id FROM test_reads"):
            found.setdefault(str(items), set()).add(str(trial_id))
        return found

    def environments(self) -> tuple[str, ...]:
        """Return the distinct environments that jobs ran in."""
        found = [event.environment for _, event in self.events("JobEnd") if isinstance(event, JobEnd)]
        return tuple(dict.fromkeys(found))

    # Helpers ----------------------------------------------------------------------------------------------------------

    def _log_read(self, items: str, trials: Sequence[Trial]) -> None:
        with locks.disk_errors(self.folder), self._connection as connection:
            connection.executemany(
                "INSERT OR IGNORE INTO test_reads VALUES (?, ?)", [(items, trial.id) for trial in trials]
            )

    def _jobs(self) -> Iterator[StoredJob]:
        rows = self._connection.execute("SELECT id, role, config FROM trials")
        trials = {(trial_id, role): Trial(Config.parse(config), Role(role)) for trial_id, role, config in rows}
        for job_id, kind, text in self._connection.execute("SELECT id, kind, plan FROM jobs ORDER BY sequence"):
            plan = json.loads(text)
            members = tuple(trials[trial_id, role] for trial_id, role in plan["trials"])
            if kind == "TrainJob":
                # a store of the first version has neither of the last two
                yield TrainJob(
                    job_id, members, plan["micro_rows"], None, plan.get("compiled", False), plan.get("recompute", False)
                )
            elif kind == "ExamJob":
                yield ExamJob(job_id, members, tuple(plan["adapters"]), plan["split"])
            elif kind == "RetentionJob":
                yield RetentionJob(job_id, members, tuple(plan["adapters"]), plan["text"])
            else:
                raise WelltunedError(f"study folder {self.folder}: job {job_id} is of the unknown kind '{kind}'")

    def _num_lost(self, job_id: str, failures_only: bool = False) -> int:
        query = "SELECT count(*) FROM events WHERE kind = 'JobLost' AND job_id = ?"
        query += " AND NOT ifnull(json_extract(body, '$.differs'), 0)" if failures_only else ""
        return int(self._connection.execute(query, (job_id,)).fetchone()[0])

    def _blobs_in_use(self) -> set[str]:
        adapters = {blob for _, blob in self._adapters()}
        packs = [job for job in self.open_jobs() if isinstance(job, TrainJob)]
        return adapters | {pack.resume for pack in packs if pack.resume is not None}

    def _adapters(self) -> Iterator[tuple[str, str]]:
        for job_id, body in self._connection.execute("SELECT job_id, body FROM events WHERE kind = 'Outcome'"):
            adapter = json.loads(body)["adapter"]
            if adapter is not None:
                yield job_id, adapter

    def _drop_checkpoints(self, job_id: str) -> None:
        """Delete a job's old checkpoints: the newest (or the job's end) is on disk by now."""
        query = "SELECT measured FROM events WHERE kind = 'Checkpoint' AND job_id = ?"
        old = {json.loads(measured)["blob"] for (measured,) in self._connection.execute(query, (job_id,))}
        for name in old - self._blobs_in_use():
            (self.blobs / name).unlink(missing_ok=True)


def _connect(folder: Path, write: bool) -> sqlite3.Connection:
    file = folder / DATABASE
    with locks.disk_errors(folder):
        mode = "rwc" if write else "ro"
        connection = sqlite3.connect(f"{file.resolve().as_uri()}?mode={mode}", uri=True, timeout=BUSY_SECONDS)
        try:
            connection.execute("PRAGMA synchronous = FULL")
            found = schema.version_of(connection)
            if write:
                connection.execute("PRAGMA journal_mode = WAL")  # `show` and `report` read while the study is written
        except BaseException:
            connection.close()
            raise
    if found > schema.VERSION:
        connection.close()
        raise StoreError(
            f"study folder {folder}: got schema version {found}, expected at most {schema.VERSION}; it was made by a "
            "newer welltuned: upgrade this one"
        )
    return connection


def _plan_text(job: StoredJob) -> str:
    plan: dict[str, object] = {"trials": [[trial.id, trial.role] for trial in job.trials]}
    if isinstance(job, TrainJob):
        plan |= {"micro_rows": job.micro_rows, "compiled": job.compiled, "recompute": job.recompute}
    elif isinstance(job, ExamJob):
        plan |= {"adapters": job.adapters, "split": job.split}
    else:
        plan |= {"adapters": job.adapters, "text": job.text}
    return json.dumps(plan, sort_keys=True)
