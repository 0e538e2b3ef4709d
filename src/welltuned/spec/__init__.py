"""The study file: what is to be compared, on which model and data. Reads TOML, reports every problem at once, no torch.

`Spec.load(path)`, `Spec.parse(text)` and `Spec(name=..., model={...}, ...)` give the same frozen value or raise one
`InputError` that lists everything to be changed. `combinations()` is the product of the axes, before any model is read.
"""

import hashlib
import itertools
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ModelWrapValidatorHandler, ValidationInfo, model_validator

from welltuned.errors import InputError, problem
from welltuned.spec import _check, _fields, _rules, _text
from welltuned.spec._fields import AXES, SECTIONS, SEEDS, Compare, Model, Search, Task, Train
from welltuned.transfer import alpha as alpha_policy

FIRST_FRESH_SEED = _rules.FIRST_FRESH_SEED

__all__ = ["FIRST_FRESH_SEED", "SettingRow", "Spec", "field_rows"]


@dataclass(frozen=True)
class SettingRow:
    """One setting as a plan shows it; `source` is "file", "default" or "axis"."""

    section: str
    field: str
    value: str  # as TOML
    source: str
    meaning: str


class Spec(BaseModel):
    """A study: its sections with defaults filled in, and its axes expanded to tuples of values."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    name: str
    seed: int = 0
    model: Model
    task: Task
    train: Train
    search: Search = Field(default_factory=Search)
    compare: Compare = Field(default_factory=Compare)
    axes: dict[str, tuple[Any, ...]] = {}
    methods: dict[str, dict[str, tuple[Any, ...]]] = {}

    @model_validator(mode="wrap")
    @classmethod
    def _report_everything(cls, tree: Any, handler: ModelWrapValidatorHandler["Spec"], info: ValidationInfo) -> "Spec":
        """Replace pydantic's errors by ours, and add those that concern several fields."""
        if isinstance(tree, Spec):
            return tree
        found = _check.Findings()
        spec = handler(_check.clean(tree, found))
        _rules.check(spec, found)
        if info.context == "load":
            _rules.check_files(spec, found)
        if found.problems:
            raise InputError(found.problems)
        return spec

    @staticmethod
    def load(path: str | Path) -> "Spec":
        """Read a study file. Files that it names are looked for too, relative to the current folder."""
        path = Path(path)
        if not path.is_file():
            raise InputError(
                problem("study file", str(path), "an existing TOML file", "check the path, or make one: welltuned init")
            )
        try:
            return Spec.model_validate(_read(path.read_text(encoding="utf-8"), str(path)), context="load")
        except UnicodeDecodeError as error:
            line = problem("study file", str(path), "text in UTF-8", f"save it as UTF-8 (byte {error.start} is not)")
            raise InputError(line) from error

    @staticmethod
    def parse(text: str) -> "Spec":
        """Read a study from TOML text, without looking whether the files it names still exist."""
        return Spec.model_validate(_read(text, "study file"))

    def text(self) -> str:
        """Return the canonical TOML: its settings, defaults included; equal studies have equal texts."""
        sections = {
            name: {field: getattr(getattr(self, name), field) for field in section.model_fields}
            for name, section in SECTIONS.items()
        }
        return _text.write(self.name, self.seed, sections, self.axes, self.methods)

    def hash(self) -> str:
        """Return the content address of the study (16 hex digits)."""
        return hashlib.sha256(self.text().encode()).hexdigest()[:16]

    @staticmethod
    def default(field: str) -> Any:
        """Return the default of a setting that can be an axis."""
        return _fields.default(field)

    @staticmethod
    def multiplier(alpha: str, rank: int) -> float:
        """Return the effective multiplier of B A x that an alpha policy gives at a rank."""
        return alpha_policy.multiplier(alpha, rank)

    def method_names(self) -> tuple[str, ...]:
        """List the methods of the study, in the order given."""
        return self.axes.get("method", (self.train.method,))

    def fixed(self) -> dict[str, Any]:
        """Return every setting of a trial as its section gives it."""
        return {field: getattr(getattr(self, section), field) for field, section in AXES.items()}

    def axes_of(self, method: str) -> dict[str, tuple[Any, ...]]:
        """Return the axes one method is tuned over: its own table goes before [axes]; the learning rate comes last."""
        axes = self.axes | self.methods.get(method, {})
        axes.pop("method", None)
        return {field: axes[field] for field in sorted(axes, key=lambda name: (name == "learning_rate", _place(name)))}

    def moving_seeds(self, method: str, subset: str) -> tuple[str, ...]:
        """List the seeds that are not fixed and that decide anything; a seed axis with several values moves."""
        axes = self.axes_of(method)
        free = [field for field in SEEDS if (len(axes[field]) > 1 if field in axes else self.fixed()[field] is None)]
        return tuple(field for field in free if field != "subset_seed" or subset == "seeded")

    def rows(self) -> tuple[SettingRow, ...]:
        """List every setting with its value and where that comes from, in the file's order."""
        seed_from = "file" if "seed" in self.model_fields_set else "default"
        rows = [
            SettingRow("", "name", self.name, "file", "what the study is called"),
            SettingRow("", "seed", str(self.seed), seed_from, "every random stream of the study derives from it"),
        ]
        for name, section in SECTIONS.items():
            for field, info in section.model_fields.items():
                table = getattr(self, name)
                given = self.axes.get(field) if field in AXES else None
                source = "axis" if given else "file" if field in table.model_fields_set else "default"
                shown = _text.value(given if given else getattr(table, field))
                rows.append(SettingRow(name, field, shown, source, info.description or ""))
        for method in sorted(self.methods):
            own = self.methods[method]
            rows += [SettingRow(f"methods.{method}", field, _text.value(own[field]), "axis", "") for field in own]
        return tuple(rows)

    def replaced(self) -> tuple[str, ...]:
        """List the settings that stand in a section although an axis for all methods replaces them."""
        return tuple(field for field in self.axes if field in getattr(self, AXES[field]).model_fields_set)

    def combinations(self) -> Iterator[dict[str, Any]]:
        """Yield the settings of every configuration: for each method, the product of its axes; seeds as written."""
        for method in self.method_names():
            axes = self.axes_of(method)
            for values in itertools.product(*axes.values()):
                yield self.fixed() | {"method": method} | dict(zip(axes, values, strict=True))


def field_rows() -> tuple[tuple[str, str, Any, str], ...]:
    """List every setting as (section, field, default, meaning), in the file's order; what `init` writes as comments."""
    return tuple(
        (name, field, info.default, info.description or "")
        for name, section in SECTIONS.items()
        for field, info in section.model_fields.items()
    )


def _place(field: str) -> int:
    return list(AXES).index(field)


def _read(text: str, what: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line = f"{what}: got broken TOML, {str(error)[0].lower()}{str(error)[1:]}, expected lines like rank = 8"
        raise InputError(f"{line}; correct that line") from error
