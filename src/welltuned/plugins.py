"""Plug-ins by file name: `methods/pissa.py` exports `METHOD` and is "pissa"; "my_lab.sparse:METHOD" is from outside."""

import hashlib
import importlib
import inspect
import pkgutil
from typing import Any

from welltuned.errors import InputError, suggestion

EXPORTS = {"methods": "METHOD", "tasks": "TASK", "searches": "SEARCH", "figures": "FIGURE"}
FOLDERS = {"methods": "methods", "tasks": "tasks", "searches": "search", "figures": "figures"}


def names(kind: str) -> list[str]:
    """List the plug-ins of a kind that ship here: the file names of its folder without a leading underscore."""
    package = importlib.import_module(f"welltuned.{FOLDERS[kind]}")
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__) if not module.name.startswith("_"))


def load(kind: str, name: str) -> Any:
    """Return the plug-in object called `name` ("pissa", or "my_lab.sparse:METHOD" for one outside welltuned).

    A method "A+B" is A started by B's initialisation ("dora+pissa").

    Raises InputError, with the known names and a suggestion, where there is none.
    """
    if kind == "methods" and "+" in name:
        first, _, second = name.partition("+")
        return load(kind, first).started_by(load(kind, second), name)
    if ":" in name:
        return _load_outside(kind, name)
    if name not in names(kind):
        raise InputError(f"no {kind} plug-in '{name}'; {suggestion(name, names(kind))}")
    return getattr(importlib.import_module(f"welltuned.{FOLDERS[kind]}.{name}"), EXPORTS[kind])


def source_hash(name: str) -> str:
    """Return the hash of an outside plug-in's source file ("" for one that ships here: its VERSION speaks for it)."""
    if ":" not in name:
        return ""
    modules = [importlib.import_module(part.partition(":")[0]) for part in name.split("+") if ":" in part]
    return hashlib.sha256("".join(inspect.getsource(module) for module in modules).encode()).hexdigest()[:16]


def _load_outside(kind: str, name: str):
    module_name, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise InputError(
            f"{kind} plug-in: got '{name}', expected an importable 'module:{EXPORTS[kind]}', but there is no module "
            f"'{error.name}'; install it or run from the folder that holds it"
        ) from error
    if attribute not in vars(module):
        raise InputError(
            f"{kind} plug-in: got '{name}', but module '{module_name}' has no '{attribute}'; export {EXPORTS[kind]}"
        )
    return vars(module)[attribute]
