"""The report's answer in two sentences: who came first, and whether the runner-up is told apart from it.

The sentences describe what was measured. They are no verdict: that needs a margin stated in advance.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from welltuned.analysis.difference import paired
from welltuned.analysis.interval import Interval
from welltuned.analysis.summary import SummaryRow, winners
from welltuned.analysis.wording import Key, label, nats_text, percent_text, plural, rate_text, signed


@dataclass(frozen=True)
class _Metric:
    name: str  # for difference.paired
    noun: str
    sign: int  # +1 where more is better
    interval: Callable[[SummaryRow], Interval | None]
    text: Callable[[float | None], str]
    difference_unit: str
    difference_text: Callable[[float], str]


def _points(share: float) -> str:
    return signed(100 * share, 1)


def _nats(nats: float) -> str:
    return signed(nats, 4)


ACCURACY = _Metric("accuracy", "test accuracy", +1, lambda row: row.test_accuracy, percent_text, "points", _points)
NLL = _Metric("nll", "validation loss", -1, lambda row: row.fresh_nll, nats_text, "nats", _nats)


def answers(rows: Sequence[SummaryRow]) -> tuple[str, ...]:
    """Return one answer of two sentences for each problem of the study."""
    problems = list(dict.fromkeys(row.problem for row in rows))
    if not problems:
        return ("No trial has ended yet. Run the study again to go on.",)
    return tuple(_answer(problem, [row for row in winners(rows) if row.problem == problem]) for problem in problems)


def _answer(problem: Key, best: Sequence[SummaryRow]) -> str:
    where = f"On {label(problem)}, " if problem else ""
    if not best:
        return f"{where}no configuration has a score yet. Run the study again to go on."
    metric = next((one for one in (ACCURACY, NLL) if all(one.interval(row) for row in best)), None)
    if metric is None:
        return _selection_only(where, best)
    ranked = sorted(best, key=lambda row: -metric.sign * _mean(metric, row))
    return f"{_first(where, ranked, metric)} {_second(ranked, metric)}"


def _mean(metric: _Metric, row: SummaryRow) -> float:
    interval = metric.interval(row)
    assert interval is not None, "the metric was chosen because every row has it"
    return interval.mean


def _selection_only(where: str, best: Sequence[SummaryRow]) -> str:
    first = min(best, key=lambda row: row.selection_nll or 0.0)
    return _capital(
        f"{where}{first.method} reaches the lowest validation loss so far, {nats_text(first.selection_nll)} nats "
        f"({_configuration(first)}). Not every method's choice has been rerun on fresh seeds, so this is the number "
        "that was selected on, and nothing is told apart yet."
    )


def _first(where: str, ranked: Sequence[SummaryRow], metric: _Metric) -> str:
    first = ranked[0]
    value = f"{metric.text(_mean(metric, first))}{_span(metric.interval(first), metric.text)}"
    seeds = plural(len(first.fresh), "fresh seed")
    if len(ranked) == 1:
        text = f"{where}tuned on validation and rerun on {seeds}, {first.method} reaches a {metric.noun} of {value}"
    else:
        best = "highest" if metric.sign > 0 else "lowest"
        text = f"{where}tuned on validation and rerun on {seeds}, {first.method} has the {best} {metric.noun}: {value}"
    return _capital(f"{text}, with {_configuration(first)}.")


def _second(ranked: Sequence[SummaryRow], metric: _Metric) -> str:
    if len(ranked) == 1:
        return "The study has one method, so there is nothing to compare it with."
    first, runner = ranked[0], ranked[1]
    gap = paired(first, runner, metric.name)
    if gap is None:
        return f"The runner-up {runner.method} was rerun on other seeds, so that the two cannot be paired."
    size = f"{metric.difference_text(gap.mean)} {metric.difference_unit}"
    text = f"Its difference to the runner-up {runner.method} is {size}"
    if gap.low is None or gap.high is None:
        return f"{text} on the one seed they share, which has no interval: the two are not told apart."
    beyond = "differ beyond the chance of seeds (that of the test items aside)"
    told = "are not told apart" if gap.low <= 0.0 <= gap.high else beyond
    span = f"{metric.difference_text(gap.low)} to {metric.difference_text(gap.high)}"
    return f"{text} (paired over {gap.num_seeds} seeds, 95 % interval {span}): the two {told}."


def _span(interval: Interval | None, text: Callable[[float | None], str]) -> str:
    if interval is None or interval.low is None:
        return ""
    return f" (95 % interval over seeds {text(interval.low)} to {text(interval.high)})"


def _configuration(row: SummaryRow) -> str:
    rest = tuple(part for part in row.key if part[0] not in ("method", "batch_size") and part not in row.problem)
    others = f", {label(rest)}" if rest else ""
    return f"batch size {row.batch_size}{others} and learning rate {rate_text(row.selected_rate)}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:] if text.startswith(("On ", "tuned")) else text
