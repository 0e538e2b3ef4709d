"""The question that a study asks, in one sentence written from what was varied."""

from collections.abc import Iterable, Sequence
from typing import Any

from welltuned.analysis.cells import group, order
from welltuned.records import Declaration, Result


def question(results: Sequence[Result], declaration: Declaration) -> str:
    """Say what was asked: methods, problem, and the axes within which the learning rate was tuned.

    Only what ended trials show is named, so that the question of an unfinished study is that of its results so far.
    """
    if not results:
        return "The study has no ended trial yet, so that it answers nothing so far."
    configs = [result.config for result in results]
    methods = sorted({config.method for config in configs})
    counts = [len(cell.rates) for cell in group(results, declaration.cell) if cell.rates]
    where = f"on {listed(sorted({config.task for config in configs}))} with {listed(_bases(results))}"
    axes = [name for name in declaration.cell if name not in ("method", "base", "task")]
    settings = [text for name in axes if (text := _axis(name, [getattr(config, name) for config in configs]))]
    most = f"{min(counts)} to {max(counts)}" if counts and min(counts) < max(counts) else f"{max(counts, default=0)}"
    tuned = f"its learning rate tuned over {most} values" if max(counts, default=0) > 1 else "its learning rate fixed"
    within = f" at every {' and '.join(settings)}" if settings else ""
    if len(methods) == 1:
        return f"How good is {methods[0]} {where}, {tuned}{within}?"
    return f"Which of {listed(methods)} is best {where}, each with {tuned}{within}?"


def _bases(results: Sequence[Result]) -> list[str]:
    return sorted({result.config.base for result in results})


def _axis(name: str, values: Iterable[Any]) -> str:
    """Name an axis with its values; "" for one that the results do not vary."""
    distinct = sorted(set(values), key=lambda value: order(((name, value),)))
    if len(distinct) < 2:
        return ""
    return f"{name.replace('_', ' ')} of {listed([str(value) for value in distinct])}"


def listed(names: Sequence[str]) -> str:
    """Write names as a list in words.

    >>> listed(["lora", "milora", "pissa"]), listed(["lora"])
    ('lora, milora and pissa', 'lora')
    """
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
