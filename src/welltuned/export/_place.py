"""Where an export goes: names that other programs can take, and a folder that is there whole or not at all.

Only what an export wrote is ever replaced, which is told by a mark in a file of its own, and never what a trial needs.
"""

import os
import shutil
import tempfile
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path

from welltuned import fingerprint
from welltuned.errors import InputError, MachineError, problem
from welltuned.records import Config

MAX_NAME = 96  # characters of a model's name on the Hugging Face hub (huggingface_hub's validate_repo_id)
SEPARATORS = "/\\:"
# File names that Windows keeps for devices, and those that mean a folder itself.
RESERVED = {"", ".", "..", "con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}
CARD_MARK = "Written by [welltuned]"
SETTINGS_MARK = "# Chosen by welltuned"
# One of these files, with its mark, is in every folder that an export wrote.
MARKS = {"README.md": CARD_MARK} | dict.fromkeys(("trl.yaml", "axolotl.yaml", "llama_factory.yaml"), SETTINGS_MARK)
TRAINED = "trained"  # where the exported settings let another trainer write, in the same folder


def needed(config: Config) -> tuple[Path, ...]:
    """Return the folders of this machine that a trial is made from: its base, and the adapter that it goes on from."""
    base = fingerprint.resolve_base(config.base, config.revision).folder
    return (base,) if config.start_from is None else (base, Path(config.start_from).expanduser())


def checked(destination: Path, force: bool, keep: Sequence[Path] = ()) -> Path:
    """Return the destination if it can be written; InputError says what is wrong with its name or what is there.

    A folder that holds one of `keep` is never replaced.
    """
    name = destination.name
    _check_name(name)
    if destination.exists() and not destination.is_dir():
        raise InputError(problem("--to", str(destination), "a folder, and there is a file", "name another one"))
    there = sorted(path.name for path in destination.iterdir()) if destination.is_dir() else []
    if there and not force:
        raise InputError(
            problem("--to", str(destination), "a new or empty folder", "name another one, or replace it with --force")
        )
    if there:
        _check_replaceable(destination, there, keep)
    return destination


def _check_replaceable(destination: Path, there: Sequence[str], keep: Sequence[Path]) -> None:
    """Refuse to replace what no export wrote, what another trainer added, and what the trial needs."""
    if not any(_has_mark(destination / name, mark) for name, mark in MARKS.items()):
        expected = "a folder that an export wrote, which alone --force may replace"
        raise InputError(
            problem("--to", str(destination), expected, f"name another one (there: {', '.join(there[:3])})")
        )
    if TRAINED in there:
        expected = f"a folder without {TRAINED}/, which a trainer wrote there"
        raise InputError(problem("--to", str(destination), expected, f"move {TRAINED}/ away, or name another folder"))
    for path in keep:
        if path.resolve().is_relative_to(destination.resolve()):
            expected = f"a folder without what the trial needs ({path})"
            raise InputError(problem("--to", str(destination), expected, "name another one"))


def _has_mark(file: Path, mark: str) -> bool:
    return file.is_file() and mark in file.read_text(encoding="utf-8", errors="replace")


def _check_name(name: str) -> None:
    """Refuse a name that a serving program, a file system or the hub could not take."""
    if any(character in SEPARATORS for character in name):
        wrong = "without / \\ and :"
    elif any(unicodedata.category(character).startswith(("C", "Z")) and character != " " for character in name):
        wrong = "without control characters and line breaks"
    elif name.split(".")[0].casefold() in RESERVED or name.casefold() in RESERVED:
        wrong = "that no system keeps for itself"
    elif name != name.strip(" .") or name.startswith("-"):
        wrong = "that neither begins nor ends with a space or a dot, nor begins with a dash"
    elif len(name) > MAX_NAME:
        wrong = f"of at most {MAX_NAME} characters, not {len(name)}"
    else:
        return
    raise InputError(problem("--to", name, f"a name {wrong}", "name another folder"))


def written(destination: Path, write: Callable[[Path], None]) -> Path:
    """Let `write` fill a new folder beside the destination, then put it in the destination's place."""
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=destination.parent, prefix=f".{destination.name[:32]}-") as work:
            new, old = Path(work) / "new", Path(work) / "old"
            new.mkdir()
            write(new)
            if destination.exists():
                os.replace(destination, old)
            os.replace(new, destination)
            shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise MachineError(
            f"--to: {destination} cannot be written ({error.strerror or error}); free the disk"
        ) from error
    return destination
