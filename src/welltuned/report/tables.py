"""The report's tables: a header and rows of plain text, escaped in one place."""

import dataclasses
from collections.abc import Sequence
from html import escape
from typing import Any

from welltuned.analysis.interval import Interval
from welltuned.analysis.optimum import Optimum
from welltuned.analysis.summary import SummaryRow
from welltuned.analysis.throughput import SpeedRow
from welltuned.analysis.wording import (
    DASH,
    count_text,
    nats_text,
    percent_text,
    rate_text,
    seconds_text,
)

# Left to the declaration: what every trial of a study shares by construction.
HIDDEN = frozenset(
    ("method", "study_seed", "init_seed", "order_seed", "subset_seed", "base_hash", "data_hash", "method_source")
)


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of text; the first `num_text` columns are names, the rest are numbers and set to the right."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    num_text: int = 1
    strong: frozenset[int] = frozenset()  # rows to stress


def html(table: Table) -> str:
    """Return the table as HTML with every text escaped; what follows a line break within a cell is set small."""
    head = "".join(f"<th{_kind(table, n)}>{escaped(text)}</th>" for n, text in enumerate(table.header))
    body = "".join(
        f"<tr{' class=strong' if number in table.strong else ''}>"
        + "".join(f"<td{_kind(table, n)}>{_cell(text)}</td>" for n, text in enumerate(row))
        + "</tr>\n"
        for number, row in enumerate(table.rows)
    )
    return f"<div class=scroll><table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>"


def escaped(text: str) -> str:
    """Escape a text for HTML, and keep numbers on one line with their unit."""
    return escape(text).replace(" %", "&nbsp;%")


def _cell(text: str) -> str:
    first, _, rest = text.partition("\n")
    return escaped(first) + (f"<small>{escaped(rest)}</small>" if rest else "")


def _kind(table: Table, column: int) -> str:
    return "" if column < table.num_text else " class=number"


def winners_table(rows: Sequence[SummaryRow]) -> Table:
    """Return the winner of each method with what fresh seeds gave; columns that no method has are left out."""
    graded = any(row.test_accuracy is not None for row in rows)
    header = ["configuration", "learning rate", "η*", "validation NLL"]
    header += ["test accuracy", "item SE"] if graded else []
    body = [
        (
            row.label,
            _selected(row),
            optimum_text(row.optimum),
            _interval(row.fresh_nll, nats_text),
            *((_interval(row.test_accuracy, percent_text), _points(row.item_error)) if graded else ()),
            str(len(row.fresh)),
        )
        for row in rows
    ]
    return Table((*header, "fresh seeds"), tuple(body))


def cells_table(rows: Sequence[SummaryRow]) -> Table:
    """Return every cell: selection, optimum, fresh seeds, divergence. The winners are stressed."""
    graded = any(row.test_accuracy is not None for row in rows)
    missing = any(row.reason for row in rows)
    header = ["cell", "learning rate", "η*", "NLL, selection", "NLL, fresh seeds"]
    header += [*(["test accuracy"] if graded else []), "steps", "diverged", "clipped"]
    header += ["missing because"] if missing else []
    body = [
        (
            row.label,
            _selected(row),
            optimum_text(row.optimum),
            nats_text(row.selection_nll),
            _with_sd(row.fresh_nll, nats_text),
            *((_with_sd(row.test_accuracy, percent_text),) if graded else ()),
            f"{row.num_steps:,}",
            f"{row.num_diverged} of {row.num_trials}",
            percent_text(row.clip_fraction),
            *((row.reason or DASH,) if missing else ()),
        )
        for row in rows
    ]
    strong = frozenset(number for number, row in enumerate(rows) if row.is_winner)
    return Table(tuple(header), tuple(body), strong=strong)


def cost_table(rows: Sequence[SpeedRow]) -> Table:
    """Return what each cell cost, and the sum."""
    body = [
        (
            row.label,
            str(row.num_trials),
            count_text(row.num_tokens),
            seconds_text(row.seconds),
            seconds_text(row.seconds_per_trial),
            count_text(row.tokens_per_second),
        )
        for row in rows
    ]
    seconds, tokens = sum(row.seconds for row in rows), sum(row.num_tokens for row in rows)
    trials = sum(row.num_trials for row in rows)
    if trials:
        each = seconds_text(seconds / trials) if seconds > 0 else DASH
        speed = count_text(tokens / seconds) if seconds > 0 else DASH
        body.append(("all", str(trials), count_text(tokens), seconds_text(seconds), each, speed))
    header = ("cell", "trials", "tokens", "time", "a trial", "tokens/s")
    return Table(header, tuple(body), strong=frozenset({len(body) - 1}) if body else frozenset())


def configuration_table(rows: Sequence[SummaryRow]) -> tuple[Table, Table]:
    """Return the winners' configurations: the fields in which they differ, and those that they share."""
    configs = [dataclasses.asdict(row.config) for row in rows]
    names = [name for name in configs[0] if name not in HIDDEN] if configs else []
    differ = [name for name in names if len({str(config[name]) for config in configs}) > 1]
    shared = [name for name in names if name not in differ]
    own = Table(
        ("field", *(row.method for row in rows)),
        (
            *((name, *(_value(name, config[name]) for config in configs)) for name in differ),
            ("trainable parameters", *(f"{row.num_trainable:,}" for row in rows)),
        ),
    )
    return own, Table(("field", "value"), tuple((name, _value(name, configs[0][name])) for name in shared))


def optimum_text(found: Optimum | None) -> str:
    """Write an optimum over its near-optimal band; an open end reads as an inequality."""
    if found is None:
        return DASH
    low = ("≤ " if found.band_low_open else "") + rate_text(found.band_low)
    high = ("≥ " if found.band_high_open else "") + rate_text(found.band_high)
    return f"{rate_text(found.learning_rate)}\n{low} – {high}"


def _selected(row: SummaryRow) -> str:
    edge = row.optimum.edge if row.optimum else ""
    note = {"": "", "low": "\nlowest tried", "high": "\nhighest tried", "both": "\nnot enclosed"}[edge]
    return rate_text(row.selected_rate) + note


def _interval(interval: Interval | None, text: Any) -> str:
    if interval is None:
        return DASH
    if interval.low is None:
        return f"{text(interval.mean)}\none seed"
    return f"{text(interval.mean)}\n{text(interval.low)} – {text(interval.high)}"


def _with_sd(interval: Interval | None, text: Any) -> str:
    if interval is None:
        return DASH
    return text(interval.mean) if interval.sd is None else f"{text(interval.mean)}\nsd {text(interval.sd)}"


def _points(share: float | None) -> str:
    return DASH if share is None else f"{100 * share:.1f} points"


def _value(name: str, value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, tuple | list):
        return ", ".join(str(item) for item in value) or "none"
    if name == "learning_rate":
        return rate_text(value)
    return f"{value:g}" if isinstance(value, float) else str(value) or "none"
