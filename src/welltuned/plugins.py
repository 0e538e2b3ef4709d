"""Plug-ins by file name: `methods/pissa.py` exports `METHOD` and is "pissa"; "my_lab.sparse:METHOD" is from outside."""

import hashlib
import importlib
import inspect
import pkgutil
import traceback
from types import ModuleType
from typing import Any

from welltuned.errors import InputError, problem, suggestion

EXPORTS = {"methods": "METHOD", "tasks": "TASK", "searches": "SEARCH", "figures": "FIGURE"}
FOLDERS = {"methods": "methods", "tasks": "tasks", "searches": "search", "figures": "figures"}
CLASSES = {
    "methods": ("_method", "Method"),
    "tasks": ("_task", "Task"),
    "searches": ("_search", "Search"),
    "figures": ("_picture", "Picture"),
}
# What the code of a module that is not ours may raise while it is imported; MemoryError and the like are not its fault.
FAILURES = (
    *(ImportError, NameError, AttributeError, TypeError, ValueError, LookupError, ArithmeticError, AssertionError),
    *(RuntimeError, OSError),
)


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


def _load_outside(kind: str, name: str) -> Any:
    """Return what "module:NAME" says; InputError where the module, its code or the object is at fault."""
    module_name, _, attribute = name.partition(":")
    what, example = f"{kind} plug-in", f"my_lab.sparse:{EXPORTS[kind]}"
    if not all(part.isidentifier() for part in (*module_name.split("."), attribute)):
        raise InputError(problem(what, name, f"a name such as '{example}'", "write the module, a colon, the object"))
    module = _imported(what, name, module_name)
    if attribute not in vars(module):
        others = [one for one in vars(module) if isinstance(vars(module)[one], _class(kind))]
        advice = f"did you mean '{module_name}:{others[0]}'?" if others else f"write {EXPORTS[kind]} = ... in it"
        got = f"got '{name}', but module '{module_name}' has no '{attribute}'"
        raise InputError(f"{what}: {got}, expected one that it exports; {advice}")
    found = vars(module)[attribute]
    if not isinstance(found, _class(kind)):
        got = f"got '{name}', which is of type {type(found).__name__}"
        raise InputError(
            f"{what}: {got}, expected a {_class(kind).__name__}; make it one, as docs/add-a-method.md shows"
        )
    return found


def _imported(what: str, name: str, module_name: str) -> ModuleType:
    """Import a module that somebody else wrote; whatever its code raises is told as a problem of that file."""
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = str(error.name)
        if module_name == missing or module_name.startswith(f"{missing}."):
            expected = f"a module that Python finds, but there is none called '{missing}'"
            advice = "install it, or run `python -m welltuned` from the folder that holds it"
        else:
            expected = f"all that it imports to be installed, but there is no '{missing}' ({_place(error)})"
            advice = f"install '{missing}' into the environment that runs welltuned"
        raise InputError(problem(what, name, expected, advice)) from error
    except SyntaxError as error:
        expected = f"a module of valid Python, but {error.filename}, line {error.lineno}, says: {error.msg}"
        raise InputError(problem(what, name, expected, "correct that line")) from error
    except FAILURES as error:
        told = f"{type(error).__name__}: {error} ({_place(error)})"
        advice = f'correct it; `python -c "import {module_name}"` shows all of it'
        raise InputError(problem(what, name, f"a module that can be imported, but it raised {told}", advice)) from error


def _place(error: BaseException) -> str:
    """Say where the last line of somebody's own code is that led to the error: not one of the import system's."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    return f"{frames[-1].filename}, line {frames[-1].lineno}"


def _class(kind: str) -> type:
    """Return what a plug-in of the kind is an instance of."""
    module, name = CLASSES[kind]
    return vars(importlib.import_module(f"welltuned.{FOLDERS[kind]}.{module}"))[name]
