"""`welltuned plan`: every setting, the trials, and what they will cost; trains nothing."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from welltuned.analysis.wording import DASH
from welltuned.cli._options import Device, Folder, Json, Memory, StudyFile, Threads, parse_bytes
from welltuned.cli._text import duration, print_json, say_note, size, table

if TYPE_CHECKING:
    from welltuned.plan import Plan
    from welltuned.plan_cost import ArmRow, Cost, Summary

GRID = ("arm", "axes", "trials", "reserve", "cells", "reruns", "tokens", "trainable", "multiplier")
# With a budget: what there is to choose from, what choosing may cost in full runs, and how many are chosen in the end.
BUDGET = ("arm", "axes", "combinations", "budget", "chosen", "reruns", "tokens", "trainable", "multiplier")


def command(
    file: StudyFile,
    folder: Folder = None,
    device: Device = "cpu",
    threads: Threads = None,
    memory: Memory = None,
    as_json: Json = False,
) -> None:
    """Show what a study would do and cost; trains nothing."""
    from welltuned import study as studies
    from welltuned.plan_cost import summary
    from welltuned.spec import Spec
    from welltuned.study.speed import speed

    spec = Spec.load(file)
    options = studies.Options(device=device, threads=threads, memory_bytes=parse_bytes(memory))
    plan = studies.preview(spec, options, say_note)
    memory_bytes = options.new_memory_bytes()
    speeds = _measured_rate(folder or Path("runs") / spec.name)
    if speeds is None:
        dtypes = {config.dtype for arm in plan.arms for config in arm.configs}
        speeds = {dtype: speed(options, dtype, say_note) for dtype in sorted(dtypes)}
    shown = summary(plan, memory_bytes, speeds, device)
    if as_json:
        _print_json(plan, shown, memory_bytes)
    else:
        print(plan_text(plan, shown, memory_bytes))


def plan_text(plan: "Plan", summary: "Summary", memory_bytes: int) -> str:
    """Return the plan as the screen shows it."""
    settings = [(f"{row.section}.{row.field}".lstrip("."), row.value, row.source) for row in summary.settings]
    lines = [
        f"study {plan.spec.name}, {plan.spec.hash()}",
        "",
        table(("setting", "value", "from"), settings),
        "",
        table(GRID if plan.budget is None else BUDGET, [_arm(row) for row in summary.arms]),
        "",
        *_cost(plan, summary.cost, memory_bytes),
    ]
    lines += verdict_lines(plan)
    lines += ["", *(f"note: {note}" for note in summary.notes)] if summary.notes else []
    return "\n".join(lines)


def verdict_lines(plan: "Plan") -> list[str]:
    """Return what a verdict of `compare` would rest on; nothing where the study cannot be compared."""
    from welltuned import protocol

    baseline = plan.spec.compare.baseline
    if len(plan.arms) < 2 or baseline not in plan.spec.method_names():
        return []
    return ["", *(line for ground in protocol.grounds(plan) for line in protocol.lines(ground, baseline))]


def _arm(row: "ArmRow") -> tuple[str, ...]:
    low, high = row.num_trainable
    return (
        row.name,
        " x ".join(f"{field} ({num})" for field, num in row.axes) or DASH,
        f"{row.num_select:,}",
        str(row.num_reserve) if row.budget is None else f"{row.budget:g} runs",
        str(row.num_winners),
        str(row.num_confirm),
        f"{row.num_tokens:,}",
        f"{low:,}" if low == high else f"{low:,} to {high:,}",
        ", ".join(f"{scaling:g}" for scaling in row.scalings),
    )


def _cost(plan: "Plan", cost: "Cost", memory_bytes: int) -> list[str]:
    terms = [f"{name} {size(value)}" for name, value in cost.memory.terms().items() if value]
    needed, given = size(cost.memory.total_bytes), size(memory_bytes)
    shape = f"{cost.num_pack} trials x {cost.micro_rows} {'row' if cost.micro_rows == 1 else 'rows'}"
    search = plan.spec.search.search
    chosen = f"search: {search} spends up to {plan.budget:g} run-equivalents on each method" if plan.budget else ""
    within = f" within each {' and '.join(plan.problem)}" if plan.problem else ""
    return [
        *([f"{chosen}{within}; counted below as full trials"] if chosen else []),
        f"in all: {cost.num_trials:,} trials with reruns, {cost.num_tokens:,} training tokens, {cost.flops:.2g} FLOPs",
        f"packs:  {cost.num_packs} to select, at most {cost.largest_pack} trials train together",
        f"time:   about {duration(cost.seconds)} ({cost.seconds_from})",
        f"memory: about {needed} of {given}, for {shape} at a time: {', '.join(terms)}",
    ]


def _measured_rate(folder: Path) -> float | None:
    """Return the training speed of this study's own finished trials, where there are some."""
    from welltuned.store.store import DATABASE
    from welltuned.study import Study

    if not (folder / DATABASE).is_file():
        return None
    timed = [result for result in Study(folder).results() if result.seconds > 0]
    return sum(result.num_tokens for result in timed) / sum(result.seconds for result in timed) if timed else None


def _print_json(plan: "Plan", summary: "Summary", memory_bytes: int) -> None:
    memory = summary.cost.memory
    cost = dataclasses.asdict(summary.cost) | {"memory_bytes": memory.total_bytes, "memory": memory.terms()}
    print_json(
        {
            "name": plan.spec.name,
            "spec_hash": plan.spec.hash(),
            "settings": [dataclasses.asdict(row) for row in summary.settings],
            "arms": [dataclasses.asdict(row) for row in summary.arms],
            "cost": cost,
            "available_memory_bytes": memory_bytes,
            "notes": list(summary.notes),
        }
    )
