"""A study file in its one canonical spelling: its settings, defaults included, keys in a fixed order."""

import json
from collections.abc import Mapping
from typing import Any

from welltuned.spec._fields import AXES, LATER, REQUIRED, SECTIONS


def write(name: str, seed: int, sections: Mapping[str, Mapping[str, Any]], axes: Any, methods: Any) -> str:
    """Return TOML that reads back as the same study.

    A setting that an axis replaces is left out of its section, and so is the default of one that came later.
    """
    lines = [f"name = {value(name)}", f"seed = {seed}"]
    for section in SECTIONS:
        settings = {
            field: v for field, v in sections[section].items() if field not in axes and _given(section, field, v)
        }
        if settings or not LATER.issuperset(sections[section]):  # a section that came later, and says nothing
            lines += ["", f"[{section}]", *(f"{field} = {value(setting)}" for field, setting in settings.items())]
    if axes:
        lines += ["", "[axes]"]
        lines += [f"{field} = {value(axes[field])}" for field in AXES if field in axes]
    for method in sorted(methods):
        lines += ["", f"[methods.{value(method)}]"]
        lines += [f"{field} = {value(methods[method][field])}" for field in AXES if field in methods[method]]
    return "\n".join(lines) + "\n"


def _given(section: str, field: str, setting: object) -> bool:
    """Leave out what must come from an axis or every method's own table, and a default that came later."""
    if field in LATER:
        return setting != SECTIONS[section].model_fields[field].default
    return setting is not None or field not in REQUIRED


def value(setting: Any) -> str:
    """Write one value as TOML; None is "none"."""
    if setting is None:
        return '"none"'
    if isinstance(setting, bool):
        return "true" if setting else "false"
    if isinstance(setting, str):
        return json.dumps(setting, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(setting, tuple | list):
        return f"[{', '.join(value(item) for item in setting)}]"  # pyright: ignore[reportUnknownVariableType]
    if isinstance(setting, dict):
        entries: list[str] = [f"{key} = {value(item)}" for key, item in setting.items()]  # pyright: ignore[reportUnknownVariableType]
        return f"{{ {', '.join(entries)} }}" if entries else "{}"
    return repr(setting)
