"""Which test sets were read, by which studies: one small file for each user of a machine, outside every study's folder.

A study counts its own reads in its store. What it cannot see is that the study before it, and the one before that, were
judged on the same test items. The ledger can: a row for each (test set, study, trial), added before the test data is
read and never changed. It is a record and no lock: where it cannot be written, the study goes on and says so.
"""

import os
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path

from welltuned import fingerprint
from welltuned.records import Config, ReadCount, Trial

FILE = "test_reads.db"
BUSY_SECONDS = 5.0  # assumed: how long to wait for another study that writes a row
TABLE = """
CREATE TABLE IF NOT EXISTS reads (
    test_set TEXT NOT NULL, study TEXT NOT NULL, name TEXT NOT NULL, trial_id TEXT NOT NULL,
    PRIMARY KEY (test_set, study, trial_id)) STRICT
"""
FAILURES = (OSError, sqlite3.Error)


def path() -> Path:
    """Return the ledger's file: in WELLTUNED_STATE where that is set, else where the system keeps a user's state."""
    own = os.environ.get("WELLTUNED_STATE")
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    return (Path(own) if own else state / "welltuned") / FILE


def items_key(config: Config) -> str:
    """Return what names a configuration's test items.

    That is the bytes of the test files where there are any. Where test is carved or generated it is the data and the
    split seed, whatever the number of rows: such sets share most of their items.
    """
    if config.data_test:
        return fingerprint.data_hash(config.data_test, "test")[:16]
    return fingerprint.data_hash((), f"{config.data_hash} {config.split_seed}")[:16]


def note(trials: Sequence[Trial], study: str, name: str) -> str:
    """Note that the test data is about to be read for these trials; return why that failed, "" where it did not."""
    rows = [(items_key(trial.config), study, name, trial.id) for trial in trials]
    file = path()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(file, timeout=BUSY_SECONDS)) as connection, connection:
            connection.execute(TABLE)
            connection.executemany("INSERT OR IGNORE INTO reads VALUES (?, ?, ?, ?)", rows)
    except FAILURES as error:
        return _failure(file, error)
    return ""


def count(own: Mapping[str, Iterable[str]], study: str) -> tuple[tuple[ReadCount, ...], str]:
    """Count the reads of each of these test sets, and say why other studies' could not be counted ("" where they were).

    `own` holds the trials that this study's store knows, by test set: they count whatever the ledger has.
    """
    found: dict[str, set[tuple[str, str]]] = {key: {(study, trial) for trial in own[key]} for key in own}
    file, failure = path(), ""
    try:
        if file.is_file():
            with closing(
                sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True, timeout=BUSY_SECONDS)
            ) as ledger:
                for key in found:
                    found[key] |= set(ledger.execute("SELECT study, trial_id FROM reads WHERE test_set = ?", (key,)))
        elif any(own.values()):
            failure = f"{file}: nothing is there"
    except FAILURES as error:
        failure = _failure(file, error)
    reads = (ReadCount(key, len({s for s, _ in rows}), len({t for _, t in rows})) for key, rows in found.items())
    return tuple(reads), failure


def _failure(file: Path, error: Exception) -> str:
    return f"{file}: {error}"
