"""How an audit's numbers read: shares in per cent and points with one decimal, everything else with four digits."""

from collections.abc import Sequence

from welltuned.analysis.runs import Pairs
from welltuned.analysis.wording import DASH, plural, rate_text
from welltuned.audit.records import Side
from welltuned.audit.tuned import NOUNS, Knob

FEW = 4  # values listed before a range is given instead; assumed


def value_text(value: float | None, side: Side) -> str:
    """Write a value of the metric: a share in per cent, another with four digits."""
    if value is None:
        return DASH
    return f"{100 * value / side.one:.1f} %" if side.is_share else f"{value:.4g}"


def difference_text(difference: float | None, side: Side) -> str:
    """Write a difference of two values: points where the metric is a share."""
    if difference is None:
        return DASH
    if side.is_share:
        return f"{100 * difference / side.one:.1f} points"
    return f"{difference:.2g}"


def problem_text(problem: Pairs, differing: Sequence[str]) -> str:
    """Name a problem by the columns in which the table's problems differ; "" where there is only one."""
    return ", ".join(value or DASH for name, value in problem if name in differing)


def differing(problems: Sequence[Pairs]) -> tuple[str, ...]:
    """List the columns in which problems differ.

    >>> differing([(("model", "a"), ("data", "x")), (("model", "b"), ("data", "x"))])
    ('model',)
    """
    names = dict.fromkeys(name for problem in problems for name, _ in problem)
    return tuple(name for name in names if len({dict(problem).get(name) for problem in problems}) > 1)


def knob_text(knob: Knob) -> str:
    """Write what a knob was given: how many values and which, a dash where the table does not say."""
    if knob.count is None:
        return DASH
    write = rate_text if knob.name == "learning_rate" else lambda value: f"{value:g}"
    shown = [write(value) for value in knob.values]
    if len(shown) == 1:
        return f"1 ({shown[0]})"
    span = ", ".join(shown) if len(shown) <= FEW else f"{shown[0]} to {shown[-1]}"
    return f"{len(shown)} ({span})"


def counts_text(name: str, counts: Sequence[int | None]) -> str:
    """Write how many values of a knob were tried, over several problems.

    >>> counts_text("rank", [1]), counts_text("batch_size", [2, 4]), counts_text("learning_rate", [None])
    ('1 rank', '2 to 4 batch sizes', 'learning rates that are not said')
    """
    known = [count for count in counts if count is not None]
    if len(known) < len(counts):
        return f"{NOUNS[name]}s that are not said"
    low, high = min(known), max(known)
    return plural(low, NOUNS[name]) if low == high else f"{low} to {high} {NOUNS[name]}s"


def listed(names: Sequence[str], most: int = 6) -> str:
    """List names, and how many more there are.

    >>> listed(["a", "b", "c"], 2)
    'a, b and 1 more'
    """
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")
