"""`welltuned methods`: every method in a line, or one of them explained; loads no torch."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from welltuned.analysis.wording import DASH
from welltuned.cli._options import Json

if TYPE_CHECKING:
    from rich.console import Console

    from welltuned.methods._method import Method

# What scripts/measure_methods.py measured: training time and memory relative to lora's, and inference.
MEASURED = Path(__file__).parents[1] / "methods" / "measured.json"
EXAMPLE = (("q_proj", 4096, 4096), ("up_proj", 14336, 4096))  # sizes in Llama-3.1-8B's config.json
EXAMPLE_RANK = 16
SHARED = ("rank", "alpha", "dropout", "rank_pattern", "alpha_pattern", "loraplus_lr_ratio", "start_from")


def command(
    name: Annotated[str | None, typer.Argument(help='One method to explain: "pissa", "dora+pissa".')] = None,
    as_json: Json = False,
) -> None:
    """List the fine-tuning methods, or explain one."""
    from rich.console import Console

    from welltuned import plugins
    from welltuned.cli._text import print_json

    names = plugins.names("methods") if name is None else [name]
    methods: dict[str, Method] = {one: plugins.load("methods", one) for one in names}
    measured = costs()
    if as_json:
        rows = [_row(one, method, measured.get(one)) for one, method in methods.items()]
        print_json(rows if name is None else rows[0])
    elif name is None:
        _print_table(Console(), methods, measured)
    else:
        _print_one(Console(), name, methods[name], measured.get(name))


def costs() -> dict[str, dict[str, Any]]:
    """Return the committed measurements by method; a method that was not measured has none."""
    found: dict[str, dict[str, Any]] = json.loads(MEASURED.read_text(encoding="utf-8"))["methods"]
    return found


def _row(name: str, method: "Method", measured: dict[str, Any] | None) -> dict[str, Any]:
    fields = ("summary", "paper", "formula", "trains", "peft", "advice", "version", "uses_rank", "deterministic")
    facts = {field: getattr(method, field) for field in fields}
    return {"name": name, **facts, "parametrisation": method.parametrisation().name, "measured": measured}


def _print_table(console: "Console", methods: dict[str, "Method"], measured: dict[str, dict[str, Any]]) -> None:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("method", "what it is", "paper", "trains", "in PEFT"):
        table.add_column(heading, overflow="fold")
    table.add_column("time", justify="right")
    table.add_column("writing", justify="right")
    for name, method in methods.items():
        time, writing = measured.get(name, {}).get("time"), _writing(measured.get(name))
        shown = [DASH if one is None else f"{one:.2f}" for one in (time, writing)]
        table.add_row(name, method.summary, method.paper, method.trains, method.peft or DASH, *shown)
    console.print(table)
    console.print("time: of training, relative to lora's at the same rank, measured (docs/methods.md)")
    console.print(
        "writing: time of generated text with an adapter that is not merged, relative to a merged one, measured"
    )
    console.print("explain one: welltuned methods NAME; start dora from another method: dora+pissa")


def _writing(measured: dict[str, Any] | None) -> float | None:
    """Return the time of an answer with an unmerged adapter of the lowest measured rank, relative to a merged one."""
    by_rank: dict[str, float] = (measured or {}).get("generation") or {}
    return next(iter(by_rank.values()), None)


def _print_one(console: "Console", name: str, method: "Method", measured: dict[str, Any] | None) -> None:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE, pad_edge=False, show_header=False)
    for label, value in _explained(name, method, measured):
        table.add_row(label, value)
    console.print(table, markup=False)


def _explained(name: str, method: "Method", measured: dict[str, Any] | None) -> list[tuple[str, str]]:
    seeds = "is the same for every seed: seeds vary the order of rows" if method.deterministic else "is drawn by a seed"
    time = (measured or {}).get("time")
    told = "its time is not measured, " if time is None else f"{time:.2f} times lora's training time, "
    cost = DASH if measured is None else f"{told}{measured['memory']:.2f} times its memory"
    writing = _writing(measured)
    cost += "" if writing is None else f", unmerged {writing:.2f} times the time of a merged answer"
    return [
        ("method", f"{name} (version {method.version})"),
        ("what it is", method.summary),
        ("paper", method.paper),
        ("formula", method.formula),
        ("start", f"the base, exactly; its initialisation {seeds}"),
        ("trains", f"{method.trains}: {_count(method)}"),
        ("learning rate", method.advice or DASH),
        ("cost", cost + ("" if measured is None else " (docs/methods.md)")),
        ("in PEFT", method.peft or "no class: it leaves as a merged model"),
        ("defaults", _defaults(method)),
        ("in a study", f'[train] method = "{name}", or [axes] method = ["lora", "{name}"]'),
        ("check it", f"welltuned doctor --method {name} --model YOURS"),
    ]


def _count(method: "Method") -> str:
    """Say how many numbers are trained, on weights of a known model."""
    parts = [
        f"{method.num_trainable(num_out, num_in, EXAMPLE_RANK):,} at a weight of {num_out} x {num_in}"
        for _, num_out, num_in in EXAMPLE
    ]
    rank = f", rank {EXAMPLE_RANK}" if method.uses_rank else ""
    return f"{' and '.join(parts)}{rank}"


def _defaults(method: "Method") -> str:
    """List the defaults of the settings that concern it, from the study file's own fields."""
    from welltuned.spec import Spec, _text

    unused = set() if method.uses_rank else {"rank", "alpha", "dropout", "rank_pattern", "alpha_pattern"}
    unused |= set() if method.uses_alpha else {"alpha", "alpha_pattern"}
    unused |= set() if method.parametrisation().fast else {"loraplus_lr_ratio"}
    return ", ".join(f"{field} = {_text.value(Spec.default(field))}" for field in SHARED if field not in unused)
