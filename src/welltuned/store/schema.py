"""The tables of study.db. Rows are added and never changed; a new version adds an upgrade and a golden file."""

import sqlite3

VERSION = 1  # stands in the file's user_version

TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE trials (
    sequence INTEGER PRIMARY KEY, id TEXT NOT NULL, role TEXT NOT NULL, config TEXT NOT NULL, UNIQUE (id, role)) STRICT;
CREATE TABLE jobs (
    sequence INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, plan TEXT NOT NULL,
    replaces TEXT) STRICT;
CREATE TABLE closures (job_id TEXT PRIMARY KEY, reason TEXT NOT NULL) STRICT;
CREATE TABLE events (
    sequence INTEGER PRIMARY KEY, job_id TEXT NOT NULL, kind TEXT NOT NULL, identity TEXT NOT NULL,
    body TEXT NOT NULL, measured TEXT NOT NULL, UNIQUE (job_id, kind, identity)) STRICT;
CREATE TABLE freezes (trial_id TEXT NOT NULL, role TEXT NOT NULL, PRIMARY KEY (trial_id, role)) STRICT;
CREATE TABLE test_reads (data_hash TEXT NOT NULL, trial_id TEXT NOT NULL, PRIMARY KEY (data_hash, trial_id)) STRICT;
"""


def make(connection: sqlite3.Connection, meta: dict[str, str]) -> None:
    """Make the tables of a new study, all or none."""
    script = "".join(f"INSERT INTO meta VALUES ({_quote(key)}, {_quote(value)});" for key, value in meta.items())
    connection.executescript(f"BEGIN; {TABLES} {script} PRAGMA user_version = {VERSION}; COMMIT;")


def version_of(connection: sqlite3.Connection) -> int:
    """Return the schema version of an open file; 0 for an empty one."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _quote(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
