"""The report's tables: what each method and each cell came to, what it cost, and which configurations were selected."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from welltuned.analysis.interval import Interval
from welltuned.analysis.optimum import Optimum
from welltuned.analysis.summary import SummaryRow, winners
from welltuned.analysis.throughput import SpeedRow
from welltuned.analysis.wording import (
    DASH,
    count_text,
    nats_text,
    percent_text,
    rate_text,
    seconds_text,
)
from welltuned.report.table import Table

# Left to the declaration: what every trial of a study shares by construction.
HIDDEN = frozenset(
    ("method", "study_seed", "init_seed", "order_seed", "subset_seed", "base_hash", "data_hash", "method_source")
)


def of_study(rows: Sequence[SummaryRow], speeds: Sequence[SpeedRow]) -> tuple[Table, ...]:
    """Return every table of a study, in the order in which a reader should meet them."""
    best = winners(rows)
    made = (winners_table(best), cells_table(rows)) if best else (cells_table(rows),) if rows else ()
    return (*made, *((cost_table(speeds),) if speeds else ()), *(configuration_tables(best) if best else ()))


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
    num_items = sorted({row.num_items for row in rows if row.num_items is not None})
    items = f" on {' and '.join(f'{count:,}' for count in num_items)} test items" if num_items else ""
    return Table(
        name="best_of_each_method",
        title="The best of each method",
        note="The configuration with the lowest validation loss of each method, rerun on fresh seeds"
        f"{items}. Small: the near-optimal band of η*, and 95 % t intervals over seeds"
        + ("; the standard error over items (item SE) is stated beside them." if graded else "."),
        header=(*header, "fresh seeds"),
        rows=tuple(body),
        records=tuple(_record(row) for row in rows),
    )


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
    return Table(
        name="every_cell",
        title="Every cell",
        note="The best of each method in bold. Small: the near-optimal band of η*, and standard deviations over seeds.",
        header=tuple(header),
        rows=tuple(body),
        records=tuple(_record(row) for row in rows),
        strong=frozenset(number for number, row in enumerate(rows) if row.is_winner),
    )


def _record(row: SummaryRow) -> Mapping[str, Any]:
    found, reason = row.optimum, row.reason or None
    return {
        "cell": row.label,
        "method": row.method,
        "batch_size": row.batch_size,
        "learning_rate": row.selected_rate,
        "num_rates": row.num_rates,
        "optimum_learning_rate": found.learning_rate if found else None,
        "band_low": found.band_low if found else None,
        "band_high": found.band_high if found else None,
        "edge": (found.edge or None) if found else None,
        "selection_nll": row.selection_nll,
        "num_selection_seeds": row.num_selection_seeds,
        **_interval_record("fresh_nll", row.fresh_nll),
        **_interval_record("test_accuracy", row.test_accuracy),
        "item_error": row.item_error,
        "num_items": row.num_items,
        "num_fresh_seeds": len(row.fresh),
        "num_steps": row.num_steps,
        "num_trials": row.num_trials,
        "num_diverged": row.num_diverged,
        "clip_fraction": row.clip_fraction,
        "num_trainable": row.num_trainable,
        "is_best_of_method": row.is_winner,
        "missing_because": reason,
    }


def _interval_record(name: str, found: Interval | None) -> dict[str, float | None]:
    parts = ("mean", "low", "high", "sd")
    return {f"{name}_{part}": None if found is None else getattr(found, part) for part in parts}


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
    each = seconds_text(seconds / trials) if seconds > 0 else DASH
    speed = count_text(tokens / seconds) if seconds > 0 else DASH
    body.append(("all", str(trials), count_text(tokens), seconds_text(seconds), each, speed))
    return Table(
        name="cost",
        title="Cost",
        note="Diverged trials are included: they cost time too. A trial's time is its share of the time of the trials "
        "that it was trained together with, by tokens.",
        header=("cell", "trials", "tokens", "time", "a trial", "tokens/s"),
        rows=tuple(body),
        records=tuple(
            {
                "cell": row.label,
                "method": row.method,
                "batch_size": row.batch_size,
                "num_trials": row.num_trials,
                "num_tokens": row.num_tokens,
                "seconds": row.seconds,
                "seconds_per_trial": row.seconds_per_trial,
                "tokens_per_second": row.tokens_per_second,
                "mean_pack": row.mean_pack,
            }
            for row in rows
        ),
        strong=frozenset({len(body) - 1}),
    )


def configuration_tables(rows: Sequence[SummaryRow]) -> tuple[Table, Table]:
    """Return the winners' configurations: the fields in which they differ, and those that they share."""
    configs = [dataclasses.asdict(row.config) for row in rows]
    names = [name for name in configs[0] if name not in HIDDEN]
    differ = [name for name in names if len({str(config[name]) for config in configs}) > 1]
    shared = [name for name in names if name not in differ]
    own = [(name, *(_value(name, config[name]) for config in configs)) for name in differ]
    own.append(("trainable parameters", *(f"{row.num_trainable:,}" for row in rows)))
    same = [(name, _value(name, configs[0][name])) for name in shared]
    header = ("field", *(row.method for row in rows))
    return (
        Table(
            name="selected_configurations",
            title="Selected configurations",
            note="The fields in which the best configurations of the methods differ.",
            header=header,
            rows=tuple(own),
            records=_records(header, own),
        ),
        Table(
            name="shared_configuration",
            title="Fields that all selected configurations share",
            note="",
            header=("field", "value"),
            rows=tuple(same),
            records=_records(("field", "value"), same),
            num_text=2,
            folded="Show them",
        ),
    )


def _records(header: Sequence[str], rows: Sequence[Sequence[str]]) -> tuple[Mapping[str, Any], ...]:
    """Return rows of text as records; columns of one name (a method on several problems) are numbered."""
    names = [name if header.index(name) == n else f"{name} ({n})" for n, name in enumerate(header)]
    return tuple(dict(zip(names, row, strict=True)) for row in rows)


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


Text = Callable[[float | None], str]


def _interval(interval: Interval | None, text: Text) -> str:
    if interval is None:
        return DASH
    if interval.low is None:
        return f"{text(interval.mean)}\none seed"
    return f"{text(interval.mean)}\n{text(interval.low)} – {text(interval.high)}"


def _with_sd(interval: Interval | None, text: Text) -> str:
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
