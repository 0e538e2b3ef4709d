"""Fair LoRA studies: tune every method alike, train the trials together, report with intervals.

>>> import welltuned
>>> study = welltuned.run("study.toml")  # doctest: +SKIP
>>> study.table()  # doctest: +SKIP

Importing this package loads nothing else; each name is loaded when it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from welltuned.export import load as load_adapter
    from welltuned.spec import Spec
    from welltuned.study import Study, run
    from welltuned.study import Study as open

__version__ = "0.1.0"
__all__ = ["Spec", "Study", "load_adapter", "open", "run"]

_PLACES = {
    "Spec": ("welltuned.spec", "Spec"),
    "Study": ("welltuned.study", "Study"),
    "load_adapter": ("welltuned.export", "load"),
    "open": ("welltuned.study", "Study"),
    "run": ("welltuned.study", "run"),
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'welltuned' has no attribute '{name}'")
    module, attribute = _PLACES[name]
    return vars(importlib.import_module(module))[attribute]


def __dir__() -> list[str]:
    return sorted([*globals(), *_PLACES])
