"""`welltuned advise`: what the rules say of a learning rate, side by side with their known errors; trains nothing.

A calculator, so that it takes flags for what a study has in its file.
"""

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any

import typer

from welltuned.analysis.wording import DASH
from welltuned.cli._options import Json

if TYPE_CHECKING:
    from rich.table import Table

    from welltuned.transfer.advice import Advice, Step
    from welltuned.transfer.combine import Combined, Suggestion
    from welltuned.transfer.known_errors import KnownError
    from welltuned.transfer.setting import Setting


def command(
    rank: Annotated[int, typer.Option("--r", "--rank", help="The adapter's rank.")],
    batch_size: Annotated[int, typer.Option("--batch-size", help="The effective batch size.")],
    model: Annotated[
        str | None,
        typer.Option("--model", help="Base model: a bundled name, a folder, a .gguf file, a downloaded hub name."),
    ] = None,
    alpha: Annotated[str, typer.Option("--alpha", help='lora_alpha: "r", "2r", a number, or "16/sqrt(r)".')] = "r",
    method: Annotated[str, typer.Option("--method", help="The method, as in `welltuned methods`.")] = "lora",
    num_samples: Annotated[
        int | None, typer.Option("--num-samples", help="Training rows seen in all: rows times epochs.")
    ] = None,
    target_modules: Annotated[
        str | None,
        typer.Option("--target-modules", help='Adapted modules, as in "q_proj,v_proj". Default: all linear.'),
    ] = None,
    hidden_size: Annotated[
        int | None, typer.Option("--hidden-size", "--width", help="Inputs of the adapted layers, instead of --model's.")
    ] = None,
    full_learning_rate: Annotated[
        float | None, typer.Option("--full-learning-rate", help="The best one of full fine-tuning, where it is known.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what learning rate the rules suggest, and how far they were off where the truth is known."""
    from welltuned import plugins
    from welltuned.cli._text import print_json
    from welltuned.transfer.advice import advise

    plugins.load("methods", method)  # a name that is none is reported with a suggestion
    modules = tuple(part.strip() for part in (target_modules or "").split(",") if part.strip())
    width, family, note = _width(model, hidden_size, modules)
    found = advise(_setting(method, rank, alpha, batch_size, width, num_samples, family, full_learning_rate))
    notes = (*found.cautions, *_module_notes(modules), *note)
    if as_json:
        print_json(_json(found, notes))
    else:
        _print(found, notes, model)


def _width(model: str | None, hidden_size: int | None, modules: tuple[str, ...]) -> tuple[int, str, tuple[str, ...]]:
    """Return the inputs of the adapted layers, the model's family ("" where nobody says), and what to mind of these."""
    from welltuned import model_facts
    from welltuned.errors import InputError, problem

    if hidden_size is not None and hidden_size < 1:
        raise InputError(problem("--hidden-size", hidden_size, "an integer >= 1", "look it up in the config.json"))
    if model is None and hidden_size is None:
        raise InputError(problem("advise", "nothing", "--model or --hidden-size", "name the model, or say its width"))
    if model is None:
        assert hidden_size is not None
        return hidden_size, "", ()
    try:
        facts = model_facts.read(model)
    except InputError:
        if hidden_size is None:
            raise
        return hidden_size, "", (f"{model} could not be read: its family is not known",)
    return hidden_size or model_facts.inputs(facts, modules), facts.family, ()


def _setting(
    method: str,
    rank: int,
    alpha: str,
    batch_size: int,
    width: int,
    num_samples: int | None,
    family: str,
    full_rate: float | None,
) -> "Setting":
    from welltuned.transfer import alpha as policies
    from welltuned.transfer.setting import Setting, check

    given = Setting(method, rank, alpha, batch_size, width, num_samples, family, full_rate)
    return check(dataclasses.replace(given, alpha=policies.spelled(alpha)))


def _module_notes(modules: tuple[str, ...]) -> tuple[str, ...]:
    from welltuned.model_facts import attention_only

    if attention_only(modules):
        return ("only attention is adapted: the rules were measured with all linear layers, or the MLP's",)
    return ()


# The page -------------------------------------------------------------------------------------------------------------


def _print(found: "Advice", notes: tuple[str, ...], model: str | None) -> None:
    from rich.console import Console

    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.print(_heading(found.setting, model))
    suggested = [one for one in found.suggestions if one.rate is not None]
    rows = [(one.formula.name, _rate(one.rate), *_error(one.error), one.formula.source) for one in suggested]
    console.print(_table("formula", rows), soft_wrap=False)
    for one in found.suggestions:
        if one.rate is None:
            console.print(f"{one.formula.name}: nothing, it {one.reason}")
    console.print(f"\n{_together(found.combined)}\n")
    moves = [(step.change, _factor(step), *_error(step.error), step.rule.source) for step in found.steps]
    console.print(_table("from here, with", moves), soft_wrap=False)
    of = f" of {found.scale.title}" if found.scale else ""
    console.print(
        f"median, 90 %: of the error in octaves (1 is a factor of 2) on n best rates, or pairs of them,{of}\n"
        "*: constants were fitted to these; docs/rules.md explains formulas and rules"
    )
    for note in notes:
        console.print(f"note: {note}")


def _table(first: str, rows: list[tuple[str, ...]]) -> "Table":
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(first, overflow="fold")
    table.add_column("learning rate", justify="right", overflow="fold")
    for heading in ("median", "90 %", "n"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("source", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def _heading(setting: "Setting", model: str | None) -> str:
    samples = f"{setting.num_samples:,} samples" if setting.num_samples is not None else "samples not known"
    family = f", {setting.family}" if setting.family else ""
    return (
        f"{setting.method} on {model or 'a model'} (hidden size {setting.width}{family}): rank {setting.rank}, alpha "
        f"{setting.alpha} (s = {setting.scaling:.3g}), batch size {setting.batch_size}, {samples}"
    )


def _together(found: "Combined | None") -> str:
    if found is None:
        return "together: nothing is known of a model like this; sweep the learning rate"
    parts = ", ".join(f"{name} {weight:.0%}" for name, weight in found.weights.items())
    return (
        f"together: {_rate(found.rate)}, with 90 % within [{_rate(found.low)}, {_rate(found.high)}] (weights: {parts})"
    )


def _rate(rate: float | None) -> str:
    return DASH if rate is None else f"{rate:.2g}"


def _factor(step: "Step") -> str:
    return f"no rule: {step.reason}" if step.factor is None else f"x {step.factor:.2f}"


def _error(error: "KnownError | None") -> tuple[str, str, str]:
    """Write median, 90 % quantile and number; dashes where nothing was measured."""
    if error is None:
        return (DASH, DASH, DASH)
    return (f"{error.median:.2f}", f"{error.q90:.2f}", f"{error.num}{'' if error.held_out else '*'}")


# For programs ---------------------------------------------------------------------------------------------------------


def _json(found: "Advice", notes: tuple[str, ...]) -> dict[str, Any]:
    return {
        "setting": dataclasses.asdict(found.setting) | {"scaling": found.setting.scaling},
        "suggestions": [_suggestion(one) for one in found.suggestions],
        "together": _combined(found.combined),
        "moves": [_move(step) for step in found.steps],
        "notes": list(notes),
    }


def _suggestion(one: "Suggestion") -> dict[str, Any]:
    facts = {name: getattr(one.formula, name) for name in ("name", "statement", "source", "standing")}
    return {**facts, "learning_rate": one.rate, "reason": one.reason, "error": _fields(one.error)}


def _combined(found: "Combined | None") -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "learning_rate": found.rate,
        "low": found.low,
        "high": found.high,
        "weights": dict(found.weights),
        "error": _fields(found.error),
    }


def _move(step: "Step") -> dict[str, Any]:
    facts = {name: getattr(step.rule, name) for name in ("name", "statement", "source", "standing", "domain")}
    return {**facts, "with": step.change, "factor": step.factor, "reason": step.reason, "error": _fields(step.error)}


def _fields(error: "KnownError | None") -> dict[str, Any] | None:
    return None if error is None else dataclasses.asdict(error)
