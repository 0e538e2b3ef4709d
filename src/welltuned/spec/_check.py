"""Reads the tree of a study file into valid fields and a list of everything that is wrong with it, one line each."""

import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from welltuned.errors import problem, suggestion
from welltuned.spec import _grids
from welltuned.spec._fields import AXES, SECTIONS, Expected, Section, expected

TOP = ("name", "seed", "axes", "methods", *SECTIONS)
GRID_KEYS = ("grid", "from", "to")
TINY, HUGE = 1e-100, 1e100  # ends of a grid; beyond the largest float its powers cannot be computed


@dataclass
class Findings:
    """What reading a tree has found so far; `broken` are the fields whose values are unusable."""

    problems: list[str] = field(default_factory=list[str])
    broken: set[str] = field(default_factory=set[str])

    def add(self, line: str, *fields: str) -> None:
        """Note one problem, once, and the fields it makes unusable."""
        self.broken.update(fields)
        if line not in self.problems:
            self.problems.append(line)


def clean(tree: Mapping[str, Any], found: Findings) -> dict[str, Any]:
    """Return the valid part of a tree, its axes expanded to tuples of values."""
    for key in tree:
        if key not in TOP:
            found.add(_unknown(key, key, TOP))
    cleaned: dict[str, Any] = {name: _section(name, tree.get(name, {}), found) for name in SECTIONS}
    _top(tree, cleaned, found)
    axes = _table("axes", tree.get("axes", {}), found)
    cleaned["axes"] = {key: values for key, raw in axes.items() if (values := _axis("axes", key, raw, found))}
    methods: Mapping[str, object] = _table("methods", tree.get("methods", {}), found)
    cleaned["methods"] = {name: _method(name, table, found) for name, table in methods.items()}
    return cleaned


def _top(tree: Mapping[str, Any], cleaned: dict[str, Any], found: Findings) -> None:
    name, seed = tree.get("name"), tree.get("seed", 0)
    if not isinstance(name, str) or not name:
        got = "nothing" if name is None else name
        found.add(problem("name", got, "the study's name in quotes", 'write name = "my-study" at the top'), "name")
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        found.add(problem("seed", seed, "a whole number >= 0", "write seed = 0"), "seed")
    cleaned["name"] = "unnamed" if "name" in found.broken else name
    if "seed" in tree and "seed" not in found.broken:
        cleaned["seed"] = seed


def _table(where: str, raw: object, found: Findings) -> Mapping[str, Any]:
    if isinstance(raw, Mapping):
        return raw  # pyright: ignore[reportUnknownVariableType]
    found.add(problem(where, raw, f"a table [{where}]", f"write [{where}] and its settings below it"), *AXES)
    return {}


def _section(name: str, raw: object, found: Findings) -> dict[str, Any]:
    """Return the valid settings of one section."""
    if isinstance(raw, Section):  # built in code
        return {key: getattr(raw, key) for key in raw.model_fields_set}
    table = dict(_table(name, raw, found))
    try:
        SECTIONS[name].model_validate(table)
    except ValidationError as error:
        for detail in error.errors():
            key = str(detail["loc"][0])
            if detail["type"] == "extra_forbidden":
                found.add(_unknown(f"{name}.{key}", key, tuple(SECTIONS[name].model_fields)))
            else:
                found.add(_wrong(f"{name}.{key}", name, key, table[key], detail), key)
            table.pop(key, None)
    return table


def _unknown(where: str, key: str, known: Sequence[str]) -> str:
    """Say that a key is unknown, and in which section it would not be."""
    home = next((name for name, section in SECTIONS.items() if key in section.model_fields), None)
    advice = f"move it to [{home}]" if home else suggestion(key, known)
    return f"{where}: got an unknown key, expected one that this table knows; {advice}"


def _wrong(where: str, section: str, key: str, value: object, detail: Any) -> str:
    """Say in one line why a value cannot be that of a field."""
    hint: Expected = expected(section, key)
    said = str(detail["ctx"]["error"]) if "error" in detail.get("ctx", {}) else ""
    if said.startswith(("did you mean", "Known:")):
        advice = said
    elif hint.choices:
        advice = suggestion(str(value), hint.choices)
    elif isinstance(value, str) and _would_do(section, key, value):
        advice = f"write it without the quotes: {key} = {value}"
    else:
        advice = f"write {key} = {shown(hint.example)}, for instance"
    return problem(where, value, hint.text, advice)


def _would_do(section: str, key: str, text: str) -> bool:
    """Say whether a text in quotes is a number that would be right without them."""
    try:
        number = tomllib.loads(f"{key} = {text}")[key]
        SECTIONS[section].model_validate({key: number})
    except (tomllib.TOMLDecodeError, ValidationError):
        return False
    return True


def shown(value: Any) -> str:
    """Write a value as TOML does, as far as messages need it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return f"[{', '.join(shown(item) for item in value)}]"  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{key} = {shown(item)}' for key, item in value.items())} }}"  # pyright: ignore[reportUnknownVariableType]
    return f'"{value}"' if isinstance(value, str) else repr(value)


# Axes -----------------------------------------------------------------------------------------------------------------


def _method(name: str, raw: object, found: Findings) -> dict[str, tuple[Any, ...]]:
    """Return the settings of [methods.NAME]: a plain value is a fixed one, hence an axis of one value."""
    own: dict[str, tuple[Any, ...]] = {}
    where = f"methods.{name}"
    for key, value in _table(where, raw, found).items():
        if key == "method" or AXES.get(key, "train") != "train":
            line = f"{where}.{key}: got a setting that must be equal for all methods, expected one of [train]"
            found.add(f"{line}; move it to [{AXES[key]}] or [axes]", key)
            continue
        many = isinstance(value, list | tuple | Mapping)
        if values := _axis(where, key, value if many else [value], found):
            own[key] = values
    return own


def _axis(where: str, key: str, raw: Any, found: Findings) -> tuple[Any, ...]:
    """Return an axis's values in the given order; an empty tuple where there are none that can be used."""
    what = f"{where}.{key}"
    if key not in AXES:
        if any(key in SECTIONS[name].model_fields for name in ("search", "compare")) or key in ("name", "seed"):
            found.add(f"{what}: got an axis over the study itself, expected a setting of a trial; remove it")
        else:
            found.add(_unknown(what, key, tuple(AXES)))
        return ()
    section = SECTIONS[AXES[key]]
    raw_values = _raw_values(what, key, raw, found)
    values: list[Any] = []
    for value in raw_values:
        try:
            valid = getattr(section.model_validate({key: value}), key)
        except ValidationError as error:
            found.add(_wrong(what, AXES[key], key, value, error.errors()[0]), key)
            continue
        if valid in values:
            found.add(problem(what, value, "every value once", "remove the repeated one"), key)
        values.append(valid)
    return () if key in found.broken else tuple(values)


def _raw_values(what: str, key: str, raw: Any, found: Findings) -> Sequence[Any]:
    """List an axis's values as written, a named grid's as whole numbers where the setting is one."""
    if isinstance(raw, Mapping):
        values = _grid(what, dict(raw), lambda line: found.add(line, key))  # pyright: ignore[reportUnknownArgumentType]
        kind = expected(AXES[key], key)
        if values and (isinstance(kind.example, str | bool) or kind.choices):
            found.add(f"{what}: got a named grid, expected {kind.text}; write a list of values", key)
            return ()
        whole = kind.text.startswith("a whole number")
        return [int(value) if whole and value == int(value) else value for value in values]
    if not isinstance(raw, list | tuple):
        line = problem(what, raw, "a list or a named grid", f"write {key} = [{shown(raw)}], or set it in [{AXES[key]}]")
        found.add(line, key)
        return ()
    if not raw:
        found.add(f"{what}: got an empty list, expected at least one value; add values or remove the axis", key)
    return raw  # pyright: ignore[reportUnknownVariableType]


def _grid(what: str, raw: dict[str, Any], add: Callable[[str], None]) -> Sequence[float]:
    """Expand `{ grid = NAME, from = LOW, to = HIGH }`."""
    example = 'write { grid = "4-per-decade", from = 1e-4, to = 1e-2 }, for instance'
    if set(raw) != set(GRID_KEYS):
        add(f"{what}: got a grid with the keys {', '.join(raw) or '(none)'}, expected grid, from and to; {example}")
        return ()
    name, low, high = raw["grid"], raw["from"], raw["to"]
    if name not in _grids.GRIDS:
        add(problem(what, name, "the name of a grid", suggestion(str(name), tuple(_grids.GRIDS))))
        return ()
    for end in ("from", "to"):
        value: object = raw[end]
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
            add(problem(f"{what}.{end}", value, "a finite number > 0", example))
            return ()
        if not TINY <= value <= HUGE:
            add(problem(f"{what}.{end}", value, f"a number from {TINY:g} to {HUGE:g}", example))
            return ()
    if low > high:
        add(f"{what}: got from = {low} and to = {high}, expected from <= to; swap the two ends")
        return ()
    values = _grids.values(name, low, high)
    if not values:
        add(f"{what}: got no member of {name} from {low} to {high}, expected at least one; widen the range")
    return values


def unusable(found: Findings, fields: Iterable[str]) -> bool:
    """Say whether a check of these fields would only repeat a problem that is already listed."""
    return not found.broken.isdisjoint(fields)
