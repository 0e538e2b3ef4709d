"""The tables of a verdict: each pair's difference, what was forgotten, and what choosing on the test data had shown."""

import dataclasses
from collections.abc import Sequence

from welltuned.analysis.verdict import FAMILY, best_text
from welltuned.analysis.wording import DASH, nats_text, p_text, percent_text, plural, signed
from welltuned.records import Comparison, Declaration, Hindsight, Pair
from welltuned.report.table import Table


def of_declaration(declaration: Declaration) -> tuple[Table, ...]:
    """Return the tables that there is something for."""
    found: list[Table] = []
    if declaration.comparison is not None:
        found.append(verdict_table(declaration.comparison))
        found += [forgetting_table(declaration.comparison)] if declaration.comparison.forgetting else []
    return (*found, *((hindsight_table(declaration.hindsight),) if declaration.hindsight else ()))


def verdict_table(comparison: Comparison) -> Table:
    """Return every pair with its difference, intervals, corrected p and verdict."""
    return Table(
        name="verdict",
        title="The verdict",
        note=f"Each method's best configuration minus that of {comparison.baseline}, on the same fresh seeds and test "
        f"items; small: the 95 % and 90 % intervals for other seeds and items. "
        + " ".join([FAMILY, *map(best_text, comparison.best)]),
        header=("method", "difference", "p of 0 (Holm)", "verdict", "what would decide it"),
        rows=tuple(_pair(pair) for pair in comparison.pairs),
        records=tuple(dataclasses.asdict(pair) for pair in comparison.pairs),
    )


def _pair(pair: Pair) -> tuple[str, ...]:
    where = f"\n{pair.problem}" if pair.problem else ""
    return pair.method + where, _difference(pair), p_text(pair.p_holm), pair.words, pair.decides or pair.reason or DASH


def _difference(pair: Pair) -> str:
    if pair.difference is None:
        return DASH
    spans = [f"{level} %: {_span(pair, low, high)}" for level, low, high in _ends(pair) if low is not None]
    unit = "points" if pair.metric == "accuracy" else "nats"
    return "\n".join([f"{number(pair, pair.difference)} {unit}", *spans])


def _ends(pair: Pair) -> tuple[tuple[int, float | None, float | None], ...]:
    return (95, pair.low, pair.high), (90, pair.low_90, pair.high_90)


def _span(pair: Pair, low: float | None, high: float | None) -> str:
    return DASH if low is None or high is None else f"{number(pair, low)} to {number(pair, high)}"


def number(pair: Pair, value: float) -> str:
    """Write a value of the pair's metric without its unit: points of accuracy, or nats."""
    return signed(100 * value, 1) if pair.metric == "accuracy" else signed(value, 4)


def forgetting_table(comparison: Comparison) -> Table:
    """Return the loss on other texts before and after fine-tuning."""
    rows = comparison.forgetting
    return Table(
        name="forgetting",
        title="What was forgotten",
        note="Loss in nats per token on texts that are not the task's, mean over fresh seeds. Small: 95 % t interval.",
        header=("method", "text", "before", "after", "fresh seeds"),
        rows=tuple(
            (
                row.method + (f"\n{row.problem}" if row.problem else ""),
                row.text,
                nats_text(row.base_nll),
                nats_text(row.nll) + ("" if row.low is None else f"\n{nats_text(row.low)} to {nats_text(row.high)}"),
                str(row.num_seeds),
            )
            for row in rows
        ),
        records=tuple(dataclasses.asdict(row) for row in rows),
        num_text=2,
    )


def hindsight_table(rows: Sequence[Hindsight]) -> Table:
    """Return the test accuracy of what validation chose beside that of what the test data would have chosen."""
    return Table(
        name="oracle",
        title="Had the test data been chosen on",
        note="After the verdict was stored, all kept adapters were scored on the test data; nothing was chosen "
        "from it. The first two numbers are of the seeds that selection saw, the last of fresh ones.",
        header=("method", "chosen on validation", "chosen on test", "fresh seeds", "candidates"),
        rows=tuple(
            (
                row.method + (f"\n{row.problem}" if row.problem else ""),
                f"{percent_text(row.chosen_accuracy)}\n{row.chosen_label}",
                f"{percent_text(row.best_accuracy)}\n{row.best_label}",
                percent_text(row.fresh_accuracy),
                str(row.num_candidates),
            )
            for row in rows
        ),
        records=tuple(dataclasses.asdict(row) for row in rows),
    )


def reads_text(declaration: Declaration) -> str:
    """Say how often each test set was read on this machine, by this study and others."""
    counted = [
        f"On this machine {plural(one.num_configurations, 'configuration')} of "
        f"{one.num_studies} {'study' if one.num_studies == 1 else 'studies'} read test set {one.test_set[:12]}."
        for one in declaration.test_reads
    ]
    if declaration.ledger_problem:
        counted.append(f"Reads by other studies are not counted: {declaration.ledger_problem}.")
    return " ".join(counted)
