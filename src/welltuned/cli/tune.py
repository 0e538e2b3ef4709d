"""`welltuned tune`: the batch size, learning rate and rank for a model and data, at a small part of a sweep's cost.

It writes a study file, shows its plan, runs it and hands over: the choice with its uncertainty, the adapter, and the
configuration for other trainers. The file and all trials stay in the folder; the same command goes on where it stopped.
"""

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from welltuned.analysis.wording import rate_text
from welltuned.cli._options import Device, Json, Memory, Threads, parse_bytes
from welltuned.cli._text import print_json
from welltuned.errors import InputError, problem

if TYPE_CHECKING:
    from welltuned.records import Result
    from welltuned.study import Options
    from welltuned.study.tune import Stage, Tuned
    from welltuned.study.tune_spec import Budget, Request

UNITS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
SCALES = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9}


def command(
    model: Annotated[
        str, typer.Option("--model", help="Base model: a bundled name, a folder, a .gguf file, a hub name.")
    ],
    data: Annotated[
        list[str] | None, typer.Option("--data", help="Training data: a file or a hub name; may be repeated.")
    ] = None,
    task: Annotated[str | None, typer.Option("--task", help="Task: how rows read.")] = None,
    method: Annotated[str, typer.Option("--method", help="Method that is tuned.")] = "lora",
    rank: Annotated[list[int] | None, typer.Option("--rank", min=1, help="A rank to offer; may be repeated.")] = None,
    budget: Annotated[
        str, typer.Option("--budget", help='"16x": full trials; "30m", "2h": time; "5M": tokens.')
    ] = "16x",
    num_train: Annotated[
        int | None, typer.Option("--num-train", min=1, help="Training rows. Default: those there are, 2,048 at most.")
    ] = None,
    max_length: Annotated[
        int, typer.Option("--max-length", min=2, help="Tokens of a row; longer are truncated.")
    ] = 256,
    dtype: Annotated[str, typer.Option("--dtype", help="Precision of the frozen base.")] = "float32",
    folder: Annotated[Path | None, typer.Option("--folder", help="Where it is kept. Default: runs/tune-MODEL.")] = None,
    proxy: Annotated[str | None, typer.Option("--proxy", help="A smaller model, tuned first on the same data.")] = None,
    device: Device = "cpu",
    threads: Threads = None,
    memory: Memory = None,
    plan_only: Annotated[
        bool, typer.Option("--plan-only", help="Write the study and show its plan; train nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Find the batch size, learning rate and rank for a model and data, and hand over the adapter."""
    from welltuned import study as studies
    from welltuned.study.tune_spec import Request

    folder = folder or Path("runs") / f"tune-{_name(model)}"
    options = studies.Options(device=device, threads=threads, memory_bytes=parse_bytes(memory))
    asked = Request(
        model, task or "", tuple(data or ()), num_train or 0, 0, 0, parse_budget(budget), method, dtype=dtype
    )
    _tune(_request(asked, rank, max_length, proxy), folder, options, plan_only, as_json)


def _tune(request: "Request", folder: Path, options: "Options", plan_only: bool, as_json: bool) -> None:
    """Show what will be done, do it, and hand over."""
    from welltuned.cli._progress import observer
    from welltuned.cli._text import say_note
    from welltuned.cli._tuned import as_data, tuned_text
    from welltuned.study import tune

    stage = tune.prepare(request, folder, options, say_note)
    if not as_json:
        print(_plan_text(stage, request, options))
    if plan_only:
        return
    try:
        with observer() as observe:
            tuned = tune.run(request, stage, options, observe)
    except KeyboardInterrupt:  # what is stored and how to go on has been said
        raise typer.Exit(130) from None
    if not as_json:
        print(f"{tuned_text(tuned)}\n", flush=True)  # before anything that could fail
    handed = _hand_over(folder, tuned)
    facts = as_data(tuned) | {"handed_over": handed}
    (folder / "tuned.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    if as_json:
        print_json(facts)
        return
    print("\n".join(f"{name}: {where}" for name, where in handed.items()))


def parse_budget(text: str) -> "Budget":
    """Read a budget.

    >>> parse_budget("5x").runs, parse_budget("30m").seconds, parse_budget("1.5h").seconds, parse_budget("2M").tokens
    (5.0, 1800.0, 5400.0, 2000000.0)
    """
    from welltuned.study.tune_spec import Budget

    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?([a-zA-Z]*)", text.strip())
    number, unit = (float(found.group(1)), found.group(2)) if found else (0.0, "")
    if number > 0 and unit == "x":
        return Budget(runs=number)
    if number > 0 and unit in UNITS:
        return Budget(seconds=number * UNITS[unit])
    if number > 0 and unit in ("", "k", "M", "G"):
        return Budget(tokens=number * SCALES[unit.lower()])
    expected = '"16x" (full trials), "30m" or "2h" (time), "5M" (tokens)'
    raise InputError(problem("--budget", text, expected, "write --budget 16x"))


def _request(asked: "Request", ranks: list[int] | None, max_length: int, proxy: str | None) -> "Request":
    """Fill in what was not said: the task that the data has, and the rows of each split."""
    from welltuned.cli import _rows
    from welltuned.cli.init import DEFAULT_TASK_OF_DATA
    from welltuned.study.tune_spec import FEWEST_ROWS, VALIDATION_PART

    split, num_rows = _rows.split_of(asked.data_train, ask_hub=True)
    num_train = asked.num_train or split.num_train
    num_validation = min(split.num_validation, max(1, num_train // VALIDATION_PART))
    if num_rows is not None and not asked.num_train and num_train < FEWEST_ROWS:
        expected = f"at least {_rows.fewest_rows(FEWEST_ROWS)}, of which {FEWEST_ROWS} are left to train"
        raise InputError(problem("--data", f"{num_rows} rows in all", expected, "add rows: tuning needs them"))
    if num_rows is not None and num_train > (most := num_rows - num_validation - split.num_test):
        kept = f"{num_validation} for validation and {split.num_test} that tuning never reads"
        expected = f"at most {most}: of the {num_rows} rows of --data, {kept}"
        raise InputError(problem("--num-train", num_train, expected, "lower it, or add rows"))
    return dataclasses.replace(
        asked,
        task=asked.task or (DEFAULT_TASK_OF_DATA if asked.data_train else "abacus"),
        num_train=num_train,
        num_validation=num_validation,
        num_test=split.num_test,
        ranks=tuple(sorted(set(ranks))) if ranks else None,
        max_length=max_length,
        proxy=proxy,
    )


def _plan_text(stage: "Stage", request: "Request", options: "Options") -> str:
    """Return what the first stage will do, and what follows it."""
    from welltuned.study.tune import PROXY, budget_of

    arm, spec = stage.plan.arms[0], stage.spec
    sizes, ranks, rates = (
        sorted({getattr(config, field) for config in arm.configs}) for field in ("batch_size", "rank", "learning_rate")
    )
    where = f"{spec.model.base}, {arm.configs[0].num_train:,} rows of {arm.configs[0].task}"
    reruns = (
        f", {spec.search.fresh_seeds} of them to rerun the choice on fresh seeds" if spec.search.fresh_seeds else ""
    )
    lines = [
        f"tuning {arm.name} on {where}; the study is {stage.file}",
        f"offered: batch sizes {', '.join(map(str, sizes))}; ranks {', '.join(map(str, ranks))}; "
        f"{len(rates)} learning rates from {rate_text(rates[0])} to {rate_text(rates[-1])}",
        f"budget: {budget_of(spec):.1f} full trials{reruns} (a trial of every setting would be {len(arm.configs):,})",
    ]
    lines += _time_and_memory(stage, request, options)
    if stage.name == PROXY:
        lines.append(
            f"then: {request.base} at the proxy's batch size, with learning rates around where the rules move them"
        )
    return "\n".join([*lines, *(f"note: {note}" for note in stage.plan.notes)])


def _time_and_memory(stage: "Stage", request: "Request", options: "Options") -> list[str]:
    """Return the stage's time, the one asked for or by this machine's speed, and the memory of its largest pack."""
    from welltuned.cli._text import duration, say_note, size
    from welltuned.plan_cost import summary
    from welltuned.study.speed import ASSUMED, speed

    memory_bytes, asked = options.new_memory_bytes(), request.budget.seconds
    known = ASSUMED if asked is not None else speed(options, request.dtype, say_note)
    cost = summary(stage.plan, memory_bytes, {request.dtype: known}, options.device).cost
    time = f"about {duration(cost.seconds)} of training ({cost.seconds_from}), beside what each round takes to begin"
    if asked is not None:
        time = f"{duration(asked)} in all, by what short packs of {request.base} took here"
    return [f"time: {time}", f"memory: about {size(cost.memory.total_bytes)} of {size(memory_bytes)}"]


def _hand_over(folder: Path, tuned: "Tuned") -> dict[str, str]:
    """Write adapter, settings and report; what cannot be written says why in its place."""
    from welltuned.export import export, trainers
    from welltuned.study import Study
    from welltuned.study.tune import TARGET

    study = folder / TARGET
    handed = {"report": str(Study(study).report())}
    trial_id, whose = _trial_of_choice(tuned, Study(study).results())
    handed["trial"] = f"{trial_id}, {whose}"
    for name, write in (
        ("adapter", lambda: export(study, trial_id, folder / "adapter", force=True).folder),
        ("settings", lambda: trainers.write(study, trial_id, folder / "settings", force=True).folder),
    ):
        try:
            handed[name] = str(write())
        except InputError as error:
            handed[name] = f"none ({error})"
    return handed


def _trial_of_choice(tuned: "Tuned", results: "Sequence[Result]") -> tuple[str, str]:
    """Return the id of the trial that is handed over, and whose it is: never that of another choice."""
    from welltuned.cli._results import best_trial
    from welltuned.records import Role

    usable = [rerun for rerun in tuned.reruns if rerun.adapter is not None]
    if usable:
        return best_trial(usable).trial_id, "the rerun with the lowest validation loss"
    for result in results:
        if result.role is Role.SELECT and result.config == tuned.config and result.adapter is not None:
            return result.trial_id, "the choice's own, since no rerun ended with an adapter; its loss was selected on"
    return tuned.reruns[0].trial_id, "a rerun that ended without an adapter, as did all trials of the choice"


def _name(model: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "-", Path(model).name).strip("-") or "model"
