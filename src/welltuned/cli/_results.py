"""The short table of a study's results, as `run`, `demo` and `show` end with it."""

from collections.abc import Callable, Sequence

from welltuned.analysis.caveats import caveats
from welltuned.analysis.cells import key_of
from welltuned.analysis.interval import Interval
from welltuned.analysis.summary import SummaryRow, summarise
from welltuned.analysis.verdict import FAMILY, best_text
from welltuned.analysis.wording import DASH, label, nats_text, p_text, percent_text, plural, rate_text, signed
from welltuned.cli._text import table
from welltuned.errors import InputError
from welltuned.records import Declaration, Pair, Result, Role

HEADINGS = ("", "cell", "learning rate", "rates", "diverged", "validation loss", "test accuracy", "fresh seeds")


def results_text(results: Sequence[Result], declaration: Declaration) -> str:
    """Return the table of all cells, the best cell of each method marked, and what must be said beside it."""
    rows = summarise(results, declaration.cell)
    if not rows:
        return "no trial has ended yet"
    lines = [table(HEADINGS, [_cells(row) for row in rows]), "", *_legend(rows)]
    serious = [caveat for caveat in caveats(results, declaration) if caveat.serious]
    lines += [f"caveat: {caveat.text}" for caveat in serious]
    lines += verdict_lines(declaration)
    return "\n".join(lines)


def verdict_lines(declaration: Declaration) -> list[str]:
    """Return the stored verdict, what was forgotten, the oracle pass and the test reads, where there are any."""
    lines: list[str] = []
    if declaration.comparison is not None:
        headings = (
            "verdict",
            "against",
            "difference",
            "95 % interval",
            "p of 0 (Holm)",
            "says",
            "what would decide it",
        )
        pairs = declaration.comparison.pairs
        lines += ["", table(headings, [_pair(pair) for pair in pairs]), FAMILY]
        lines += [best_text(best) for best in declaration.comparison.best]
        lines += [
            f"forgetting, {row.method}{_where(row.problem)} on {row.text}: loss {nats_text(row.base_nll)} before, "
            f"{nats_text(row.nll)} after"
            for row in declaration.comparison.forgetting
        ]
    lines += [
        f"oracle, {row.method}{_where(row.problem)}: test accuracy {percent_text(row.chosen_accuracy)} as selected on "
        f"validation, {percent_text(row.best_accuracy)} if selected on test, {percent_text(row.fresh_accuracy)} on "
        "fresh seeds"
        for row in declaration.hindsight
    ]
    lines += [
        f"This test set was read by {plural(one.num_configurations, 'configuration')} of "
        f"{one.num_studies} {'study' if one.num_studies == 1 else 'studies'} on this machine."
        for one in declaration.test_reads
    ]
    lines += (
        [f"Reads by other studies are not counted: {declaration.ledger_problem}"] if declaration.ledger_problem else []
    )
    return lines


def _pair(pair: Pair) -> tuple[str, ...]:
    unit, number = ("points", _points) if pair.metric == "accuracy" else ("nats", _nats)
    span = DASH if pair.low is None or pair.high is None else f"[{number(pair.low)}, {number(pair.high)}]"
    return (
        pair.method + _where(pair.problem),
        pair.baseline,
        DASH if pair.difference is None else f"{number(pair.difference)} {unit}",
        span,
        p_text(pair.p_holm),
        pair.words,
        pair.decides,
    )


def _where(problem: str) -> str:
    return f" ({problem})" if problem else ""


def _points(share: float) -> str:
    return signed(100 * share, 1)


def _nats(nats: float) -> str:
    return signed(nats, 4)


def best_trial(results: Sequence[Result]) -> Result:
    """Return the fresh-seed rerun with the lowest validation loss; without reruns, the selection trial."""
    usable = [result for result in results if result.adapter is not None and result.validation_nll is not None]
    if not usable:
        got = plural(len(results), "ended trial")
        raise InputError(f"best trial: got {got} without an adapter, expected a finished one; run the study first")
    reruns = [result for result in usable if result.role is Role.CONFIRM]
    return min(reruns or usable, key=lambda result: (result.validation_nll, result.trial_id))


def trials_text(results: Sequence[Result], declaration: Declaration) -> str:
    """Return a table with one line a trial."""
    headings = ("trial", "for", "cell", "learning rate", "seeds", "status", "validation loss", "test accuracy")
    return table(headings, [_trial(result, declaration.cell) for result in results])


def _trial(result: Result, cell: Sequence[str]) -> tuple[str, ...]:
    config = result.config
    return (
        result.trial_id,
        result.role.value,
        label(key_of(config, cell)),
        rate_text(config.learning_rate),
        f"{config.init_seed}/{config.order_seed}/{config.subset_seed}",
        result.status.value,
        nats_text(result.validation_nll),
        percent_text(result.test_accuracy if result.test_correct is not None else None),
    )


def _cells(row: SummaryRow) -> tuple[str, ...]:
    return (
        "*" if row.is_winner else "",
        row.label,
        rate_text(row.selected_rate),
        str(row.num_rates),
        str(row.num_diverged) if row.num_diverged else "",
        _interval(row.fresh_nll, nats_text) if row.fresh_nll else f"({nats_text(row.selection_nll)})",
        _interval(row.test_accuracy, percent_text),
        str(len(row.fresh)),
    )


def _interval(interval: Interval | None, write: Callable[[float | None], str]) -> str:
    if interval is None:
        return DASH
    mean = write(interval.mean)
    if interval.low is None or interval.high is None:
        return mean
    return f"{mean} [{write(interval.low).removesuffix(' %')}, {write(interval.high).removesuffix(' %')}]"


def _legend(rows: Sequence[SummaryRow]) -> list[str]:
    tuned = "tuned in every cell" if all(row.num_rates > 1 for row in rows) else "not tuned where it has one value"
    lines = [f"* best cell of its method by validation loss (nats per token); the learning rate was {tuned}."]
    if any(row.fresh_nll is not None for row in rows):
        lines.append(
            "Loss and accuracy: means of the fresh-seed reruns, with 95 % intervals over these seeds in brackets."
        )
    if any(row.fresh_nll is None for row in rows):
        lines.append("(In parentheses: the loss that was selected on, which is too good.)")
    return lines
