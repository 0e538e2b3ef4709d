"""Adapters and checkpoints as files named by their content, <sha256>.safetensors: whole or absent, never half."""

import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path

from safetensors import SafetensorError

from welltuned.errors import StoreError
from welltuned.store.locks import disk_errors

NAME = re.compile(r"[0-9a-f]{64}\.safetensors")
UNFINISHED = ".unfinished"
SYSTEM_ERROR = re.compile(r"\(os error (\d+)\)")  # how safetensors, which is no Python, tells the system's number


def write(folder: Path, content: bytes | Callable[[Path], None]) -> str:
    """Store bytes, or what `content(path)` writes, durably and return the blob's name.

    The file is written under a temporary name, synced, renamed to its hash, and the folder is synced, so that a name in
    an event always stands for a whole file.
    """
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        handle, temporary_name = tempfile.mkstemp(suffix=UNFINISHED, dir=folder)
        os.close(handle)
        temporary = Path(temporary_name)
        try:
            if isinstance(content, bytes):
                temporary.write_bytes(content)
            else:
                _fill(temporary, content)
            name = f"{_sync_and_hash(temporary)}.safetensors"
            temporary.replace(folder / name)
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(folder)
    return name


def _fill(file: Path, content: Callable[[Path], None]) -> None:
    """Write the file; what the disk refuses is an OSError, whoever wrote."""
    try:
        content(file)
    except SafetensorError as error:
        if told := SYSTEM_ERROR.search(str(error)):
            raise OSError(int(told[1]), os.strerror(int(told[1]))) from error
        raise


def path(folder: Path, name: str) -> Path:
    """Return the file of a blob; a missing one is an error that says what to do."""
    found = folder / name
    if not found.is_file():
        raise StoreError(
            f"blob {name}: got no such file in {folder}, expected one, since the study refers to it; "
            "restore it from a copy of the study folder, or run the study in another folder"
        )
    return found


def sweep(folder: Path, keep: Collection[str]) -> int:
    """Delete every blob that is not in `keep`, and unfinished files; return how many. Only the writer may call it."""
    num_deleted = 0
    for file in folder.iterdir() if folder.is_dir() else ():
        if file.suffix == UNFINISHED or (NAME.fullmatch(file.name) and file.name not in keep):
            file.unlink(missing_ok=True)
            num_deleted += 1
    return num_deleted


def _sync_and_hash(file: Path) -> str:
    with file.open("rb+") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
        os.fsync(opened.fileno())
    return digest


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
