"""The report's answer: the stored verdict in words where there is one, then who came first and by how much.

The last two sentences describe what was measured. They are no verdict: that needs a margin stated in advance, which
`welltuned compare` holds the study to.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from welltuned.analysis.difference import paired
from welltuned.analysis.interval import Interval
from welltuned.analysis.summary import SummaryRow, winners
from welltuned.analysis.verdict import FAMILY
from welltuned.analysis.wording import Key, label, nats_text, percent_text, plural, rate_text, signed
from welltuned.records import Comparison, Pair


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


def answers(rows: Sequence[SummaryRow], comparison: Comparison | None = None) -> tuple[str, ...]:
    """Return the verdict on each pair, if one is stored, then one answer of two sentences for each problem."""
    verdicts = () if comparison is None else tuple(_verdict(pair) for pair in comparison.pairs)
    return (*verdicts, *_described(rows))


def note(comparison: Comparison | None) -> str:
    """Say what kind of statement the answers are."""
    if comparison is None:
        return (
            "This describes what was measured. It is no verdict: no margin was stated in advance, and the first of "
            "several methods is flattered by being the first."
        )
    return (
        "The verdict was stored before anything but the finalists was scored on the test data, against a margin that "
        "was declared before the first run. What follows it describes what was measured. " + FAMILY
    )


def _verdict(pair: Pair) -> str:
    write, unit = (_points, "points") if pair.metric == "accuracy" else (_nats, "nats")
    noun = "test accuracy" if pair.metric == "accuracy" else "validation loss"
    where = f"On {pair.problem}, against" if pair.problem else "Against"
    text = f"Verdict. {where} {pair.baseline}, {pair.method} is {pair.words}"
    if pair.difference is None or pair.low is None or pair.high is None:
        return f"{text}."
    seeds = plural(pair.num_seeds, "fresh seed")
    over = f"{seeds} and {plural(pair.num_items, 'test item')}" if pair.num_items is not None else seeds
    span = f"95 % interval {write(pair.low)} to {write(pair.high)}"
    text = f"{text}: its {noun} differs by {write(pair.difference)} {unit} ({span}, over {over})."
    return f"{text} What would decide it: {pair.decides}." if pair.decides else text


def _described(rows: Sequence[SummaryRow]) -> tuple[str, ...]:
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
