"""Where an export goes: names that other programs can take, and a folder that is there whole or not at all."""

import os
import shutil
import tempfile
import unicodedata
from collections.abc import Callable
from pathlib import Path

from welltuned.errors import InputError, MachineError, problem

MAX_NAME = 96  # characters of a model's name on the Hugging Face hub (huggingface_hub's validate_repo_id)
SEPARATORS = "/\\:"
# File names that Windows keeps for devices, and those that mean a folder itself.
RESERVED = {"", ".", "..", "con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}
# One of these is in every folder that an export wrote.
MADE_HERE = ("adapter_config.json", "config.json", "trl.yaml", "axolotl.yaml")


def checked(destination: Path, force: bool) -> Path:
    """Return the destination if it can be written; InputError says what is wrong with its name or what is there."""
    name = destination.name
    _check_name(name)
    if destination.exists() and not destination.is_dir():
        raise InputError(problem("--to", str(destination), "a folder, and there is a file", "name another one"))
    there = sorted(path.name for path in destination.iterdir()) if destination.is_dir() else []
    if there and not force:
        raise InputError(
            problem("--to", str(destination), "a new or empty folder", "name another one, or replace it with --force")
        )
    if there and not set(there) & set(MADE_HERE):
        expected = f"a folder with {' or '.join(MADE_HERE)}, which --force may replace"
        raise InputError(
            problem("--to", str(destination), expected, f"name another one (there: {', '.join(there[:3])})")
        )
    return destination


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
