"""Who may write a study folder: one process on a local disk; and what a failing disk means to the user."""

import errno
import fcntl
import os
import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from welltuned.errors import MachineError, StoreError

# Filesystems on which flock and fsync do not promise what SQLite needs (sqlite.org/lockingv3.html section 6, and the
# usual cluster ones).
NETWORK_FILESYSTEMS = frozenset(
    ("nfs", "nfs4", "cifs", "smb3", "smbfs", "sshfs", "afs", "ceph", "lustre", "gpfs", "beegfs", "glusterfs")
)
MOUNTS = Path("/proc/mounts")


def take(folder: Path) -> TextIO:
    """Lock a study folder for writing until the returned file is closed or the process dies.

    Raises StoreError with the holder's process id where another process writes it.
    """
    file = (folder / "study.lock").open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read().strip() or "unknown"
        file.close()
        raise StoreError(
            f"study folder {folder}: got a second writer, expected one: process {holder} is running this study; "
            f"wait for it, or stop it (kill -INT {holder}) and run again"
        ) from None
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file


def release(lock: TextIO) -> None:
    """Let the next writer in, and leave no process id behind."""
    lock.truncate(0)
    lock.close()


def holder(folder: Path) -> int | None:
    """Return the id of the process of this machine that writes the folder, None where there is none.

    It reads the id that the writer left and takes no lock, so that it can never be in the way of a starting one.
    """
    try:
        text = (folder / "study.lock").read_text().strip()
    except FileNotFoundError:
        return None
    if not text.isdecimal():
        return None
    try:
        os.kill(int(text), 0)
    except ProcessLookupError:  # it was killed
        return None
    except PermissionError:  # it is another user's
        pass
    return int(text)


def refuse_network(folder: Path, mounts: Path = MOUNTS) -> None:
    """Raise StoreError where `folder` lies on a network filesystem (known on Linux only)."""
    filesystem = filesystem_of(folder, mounts)
    if filesystem is not None and filesystem.removeprefix("fuse.") in NETWORK_FILESYSTEMS:
        raise StoreError(
            f"study folder {folder}: got a network filesystem ({filesystem}), expected a local disk, since locks and "
            "syncs are not reliable there; choose a local folder and copy the finished study"
        )


def filesystem_of(folder: Path, mounts: Path = MOUNTS) -> str | None:
    """Return the type of the filesystem that holds `folder`: of the last mount whose point is its longest parent."""
    if not mounts.is_file():
        return None
    here = folder.resolve()
    best_length, filesystem = -1, None
    for line in mounts.read_text().splitlines():
        _, point_text, kind, *_ = line.split()
        point = Path(point_text.encode().decode("unicode_escape"))  # blanks stand as \040
        if here.is_relative_to(point) and len(point.parts) >= best_length:
            best_length, filesystem = len(point.parts), kind
    return filesystem


@contextmanager
def disk_errors(folder: Path) -> Generator[None]:
    """Turn the disk's and SQLite's errors inside the block into ones that say what to do."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        text = str(error)
        if "full" in text or "disk I/O" in text:
            raise _full(folder, text) from error
        if "not a database" in text or "malformed" in text:
            raise StoreError(
                f"study folder {folder}: got a damaged study.db ({text}), expected SQLite; restore it from a copy, or "
                "choose another folder"
            ) from error
        if "readonly" in text or "locked" in text or "unable to open" in text:
            raise _unusable(folder, text) from error
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise _full(folder, str(error)) from error
        if isinstance(error, PermissionError | NotADirectoryError | FileExistsError) or error.errno == errno.EROFS:
            raise _unusable(folder, str(error)) from error
        raise


def _full(folder: Path, text: str) -> MachineError:
    return MachineError(
        f"study folder {folder}: got '{text}' on writing, expected free disk space; free some and run again: nothing "
        "that was finished is lost"
    )


def _unusable(folder: Path, text: str) -> StoreError:
    return StoreError(
        f"study folder {folder}: got '{text}', expected a folder that can be written; choose another one or change its "
        "permissions"
    )
