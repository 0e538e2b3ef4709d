"""`welltuned init`: write a study file for a model and data; every setting with its default and its meaning."""

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from welltuned.cli import _rows
from welltuned.cli._options import Yes
from welltuned.errors import InputError, problem

BUNDLED_SMALL = "abacus-"
COMMENT_COLUMN = 34
DEFAULT_TASK_OF_DATA = "completion"
BATCH_SIZES = (4, 16, 64)  # those that the training rows fill
# Published LoRA sweeps on models of 1 to 8 billion parameters have their optima inside the first range, and PiSSA's lie
# 3 to 10 times lower (arXiv 2602.04998). Models as small as the bundled ones want larger rates (measured on them).
# The two ranges of a kind hold as many values of the grid, since `compare` refuses unequal budgets.
RATES = {"other": ((3e-5, 3e-3), (1e-5, 1e-3)), "bundled": ((1e-4, 2e-2), (3e-5, 7e-3))}

HEAD = """\
# A study: which of these methods is best on this model and data when each is tuned alike?
#   welltuned plan {file}   what it would do and cost; trains nothing
#   welltuned run {file}    run it, or go on with it; ends with a report
# A line that starts with "# " and a name shows a setting's default; remove the "# " to change it.

name = {name}
seed = 0  # every random stream of the study derives from it
"""
AXES = """
# Every combination is trained. An axis may be any setting above: a list, or a named grid with its ends. Within each
# combination of the others the learning rate is tuned on validation loss, then rerun on fresh seeds.
[axes]
method = ["lora", "pissa", "milora"]
batch_size = {batch_sizes}
learning_rate = {{ grid = "4-per-decade", from = {low!r}, to = {high!r} }}

# Settings for one method only: here a range of learning rates of its own. The report warns of a best value at an edge.
[methods.pissa]
learning_rate = {{ grid = "4-per-decade", from = {pissa_low!r}, to = {pissa_high!r} }}
"""


def command(
    file: Annotated[Path, typer.Argument(help="The study file to write.")] = Path("study.toml"),
    model: Annotated[
        str, typer.Option("--model", help="Base model: a bundled name, a folder, a .gguf file, or a hub name.")
    ] = "abacus-small",
    task: Annotated[str | None, typer.Option("--task", help="Task: how rows read and are graded.")] = None,
    data: Annotated[
        list[str] | None, typer.Option("--data", help="Training data: a file or a hub name; may be repeated.")
    ] = None,
    yes: Yes = False,
) -> None:
    """Write a commented study file for a model and data."""
    from welltuned.spec import Spec

    if file.exists() and not yes:
        advice = "name another one, or say --yes"
        raise InputError(problem("study file", str(file), "a file that does not exist yet", advice))
    text = study_text(file, model, task or _default_task(data), tuple(data or ()))
    Spec.model_validate(tomllib.loads(text), context="load")  # a wrong model, task or data file is reported now
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        line = problem("study file", str(file), "a place that can be written", f"choose another ({error.strerror})")
        raise InputError(line) from error
    print(f"wrote {file}; look through it, then: welltuned plan {file}")


def study_text(file: Path, model: str, task: str, data: Sequence[str]) -> str:
    """Return the commented TOML: required settings filled in, all others as comments with their defaults."""
    from welltuned.spec import field_rows

    split, _ = _rows.split_of(data, ask_hub=False)
    given: dict[str, Any] = {"base": model, "task": task, "num_train": split.num_train}
    if data:
        given |= {"data_train": tuple(data), "num_validation": split.num_validation, "num_test": split.num_test}
    lines = [HEAD.format(file=file, name=_toml(_study_name(file)))]
    section = ""
    axes = ("method", "batch_size", "learning_rate")
    for table, field, default, meaning in field_rows():
        if table != section:
            section = table
            lines.append(f"\n[{table}]\n")
        if field in given:
            lines.append(f"{field + ' = ' + _toml(given[field]):{COMMENT_COLUMN}}  # {meaning}\n")
        elif field in axes:
            lines.append(f"# {field}: an axis, below ({meaning})\n")
        else:
            lines.append(f"{'# ' + field + ' = ' + _toml(default):{COMMENT_COLUMN}}  # {meaning}\n")
    (low, high), (pissa_low, pissa_high) = RATES["bundled" if model.startswith(BUNDLED_SMALL) else "other"]
    batch_sizes = [size for size in BATCH_SIZES if size <= split.num_train]
    ranges = {"low": low, "high": high, "pissa_low": pissa_low, "pissa_high": pissa_high}
    return "".join(lines) + AXES.format(batch_sizes=batch_sizes, **ranges)


def _default_task(data: Sequence[str] | None) -> str:
    return DEFAULT_TASK_OF_DATA if data else "abacus"


def _study_name(file: Path) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "-", file.stem).strip("-") or "study"


def _toml(value: Any) -> str:
    from welltuned.spec import _text

    return _text.value(value)
