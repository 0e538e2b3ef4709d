"""The model card of an export: what it is, from which base and data, how it was trained, and how well it did.

Everything on it is read from the study's store, but for the licence, which only the user can give.
"""

import json
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

from welltuned.analysis.cells import key_of
from welltuned.analysis.interval import Interval
from welltuned.analysis.summary import SummaryRow, summarise
from welltuned.analysis.wording import DASH, label, nats_text, percent_text
from welltuned.export._place import CARD_MARK
from welltuned.fingerprint import resolve_base
from welltuned.records import Config, Declaration, Result, Role

HIDDEN = frozenset(("base", "revision", "base_hash", "dtype", "task", "data_train", "data_validation", "data_test"))
HIDDEN |= {"data_hash", "study_seed", "task_version", "prompt_template", "num_train", "subset", "num_validation"}
HIDDEN |= {"num_test", "split_seed", "max_length", "method_source"}

LOAD_PEFT = """import transformers
from peft import PeftModel

model = transformers.AutoModelForCausalLM.from_pretrained({base}, dtype="{dtype}")
{rounding}model = PeftModel.from_pretrained(model, "this folder")"""
ROUNDING = """# round the weights to the 8-bit values that the adapter was trained on
from welltuned.models import quantised, sites

quantised.hold(model, sites.linear_modules(model))
quantised.make_dense(model)
"""
LOAD_MERGED = """import transformers

model = transformers.AutoModelForCausalLM.from_pretrained("this folder")"""


def text(result: Result, results: Sequence[Result], declaration: Declaration, form: str, notes: Sequence[str]) -> str:
    """Return the card of a trial as Markdown; `notes` are lines on the export itself."""
    config = result.config
    sections = [
        _front(config, form),
        f"# {_plain(declaration.name)}, trial {result.trial_id}\n",
        f"{_what(config, form)} {CARD_MARK}(https://pypi.org/project/welltuned/) from study "
        f"`{_plain(declaration.name)}`, hash `{declaration.spec_hash}`.\n",
        _base(config),
        _data(config),
        "## How well it does\n\n" + _metrics(result, results, declaration),
        "## Configuration\n\n" + _table(("setting", "value"), _settings(config)),
        "## Use\n\n```python\n" + _use(config, form) + "\n```\n",
        "## Notes\n\n" + "".join(f"- {note}\n" for note in notes) if notes else "",
        "## Licence\n\nNot stated: those of the base model and of the data apply. Add yours before you share this.\n",
    ]
    return "\n".join(section for section in sections if section)


def _front(config: Config, form: str) -> str:
    lines = [f"library_name: {'peft' if form == 'peft' else 'transformers'}", "pipeline_tag: text-generation"]
    if resolve_base(config.base, config.revision).kind == "hub":
        lines.append(f"base_model: {config.base}")
    tags = ("welltuned", _plain(config.method))
    return "\n".join(["---", *lines, "tags:", *(f"- {tag}" for tag in tags), "---\n"])


def _what(config: Config, form: str) -> str:
    kind = "An adapter" if form == "peft" else "A model with an adapter merged into its weights"
    return f"{kind}, trained with method `{_plain(config.method)}` on task `{_plain(config.task)}`."


def _base(config: Config) -> str:
    revision = f", revision `{config.revision}`" if config.revision else ""
    held = "" if config.quantization == "none" else ", its linear weights rounded to 8 bits (one scale for each row)"
    return (
        f"## Base\n\n`{_plain(_name(config.base))}`{revision}, in {config.dtype}{held}; SHA-256 of its files: "
        f"`{config.base_hash}`. Adapted: {', '.join(f'`{_plain(name)}`' for name in config.target_modules)}.\n"
    )


def _data(config: Config) -> str:
    files = ", ".join(f"`{_plain(_name(name))}`" for name in config.data_train)
    made = files or "made by the task itself"
    return (
        f"## Data\n\nTask `{_plain(config.task)}` (version {config.task_version}), {made}: {config.num_train:,} rows "
        f"to train, {config.num_validation:,} to validate, {config.num_test:,} to test; at most {config.max_length} "
        f"tokens of a row. SHA-256: `{config.data_hash}`.\n"
    )


def _metrics(result: Result, results: Sequence[Result], declaration: Declaration) -> str:
    """Return this trial's numbers beside its cell's, whose interval is over fresh seeds."""
    rows = [row for row in summarise(results, declaration.cell) if row.key == key_of(result.config, declaration.cell)]
    row: SummaryRow | None = rows[0] if rows else None
    tested = result.test_correct is not None
    lines = [
        (
            "validation loss, nats per token",
            nats_text(result.validation_nll),
            _interval(row.fresh_nll if row else None, nats_text),
        ),
        (
            "test accuracy",
            percent_text(result.test_accuracy if tested else None),
            _interval(row.test_accuracy if row else None, percent_text),
        ),
        ("validation loss of the base", nats_text(result.base_validation_nll), ""),
    ]
    num_fresh = len(row.fresh) if row else 0
    cell = f"`{label(row.key)}`" if row else "none"
    said = [
        f"The right column is the mean over {num_fresh} fresh-seed reruns of the cell {cell}, with its 95 % interval."
    ]
    if result.role is Role.SELECT:
        said.append(
            "This trial took part in the selection of its learning rate, so its own validation loss is too good."
        )
    return _table(("", "this trial", "fresh seeds"), lines) + "\n" + " ".join(said) + "\n"


def _interval(interval: Interval | None, write: Any) -> str:
    if interval is None:
        return DASH
    if interval.low is None or interval.high is None:
        return f"{write(interval.mean)} ({interval.reason})"
    return f"{write(interval.mean)} [{write(interval.low)}, {write(interval.high)}]"


def _settings(config: Config) -> list[tuple[str, str]]:
    fields: dict[str, Any] = json.loads(config.text())
    order = [name for name in Config.__dataclass_fields__ if name in fields and name not in HIDDEN]
    return [(f"`{name}`", f"`{_plain(_name(str(fields[name])))}`") for name in order]


def _use(config: Config, form: str) -> str:
    if form == "merged":
        return LOAD_MERGED
    is_hub = resolve_base(config.base, config.revision).kind == "hub"
    revision = f', revision="{config.revision}"' if config.revision else ""
    base = f'"{config.base}"{revision}' if is_hub else '"folder of the base"'
    rounding = "" if config.quantization == "none" else ROUNDING
    return LOAD_PEFT.format(base=base, dtype=config.dtype, rounding=rounding)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _name(text: str) -> str:
    """Return a path's last part: a card is for others, and folders of this machine are not."""
    path = PurePath(text)
    return path.name if path.is_absolute() or text.startswith(("~", ".")) else text


def _plain(text: str) -> str:
    """Return a text that cannot leave its place in a Markdown table or code span."""
    return "".join(" " if character in "`|\n\r<>" else character for character in text)
