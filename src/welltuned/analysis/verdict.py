"""Better, worse, equivalent or undecided: what an interval says of a difference that would matter.

With a margin d declared beforehand and the interval of ours - theirs:

- better / worse: the 95 % interval lies wholly beyond d on the good / bad side;
- equivalent: the 90 % interval lies within [-d, d], which is two one-sided tests at 5 % (Schuirmann, J. Pharmacokinet.
  Biopharm. 15, 1987);
- undecided: else, and always where there is one seed or no interval.

Beside it stands plain "different from 0": the 95 % interval does not hold 0.

Each verdict is of its own pair, at 95 %, and Holm's correction for several pairs does not enter it: it is of the p of
"different from 0", shown beside. A study of many methods has that p to say which differences would survive.
"""

import enum
from dataclasses import dataclass

from welltuned.analysis.crossed import CrossedInterval, Scope
from welltuned.analysis.wording import nats_text, p_text
from welltuned.records import Best

SMALL_POINTS, LARGE_POINTS = 0.01, 0.02  # declared: the margins in accuracy, 1 and 2 points
LOSS_SHARE = 0.01  # declared: the margin in loss, relative to the baseline's loss
DISCORDANCE = (
    0.2  # assumed: the share of items that one of two methods gets right and the other wrong (published: .15-.3)
)
EQUIVALENCE_POWER = 0.8  # conventional: the chance to show that equal methods are equivalent
FAMILY = (  # what a screen and a report say under their verdicts
    "Each verdict is of its own pair: better or worse means that its 95 % interval lies beyond the margin, equivalent "
    "that its 90 % interval lies within. Only the p of a difference from 0 is corrected for all pairs of the study "
    "(Holm); the verdicts are not."
)


def best_text(best: Best) -> str:
    """Say of the method with the best mean whether it beats every other, corrected for having been picked.

    >>> best_text(Best("", "lora", False, 0.213, ""))
    'Of all methods lora has the best mean. It is not told from its nearest rival (p 0.213, corrected for all pairs).'
    """
    where = f" on {best.problem}" if best.problem else ""
    first = f"Of all methods{where} {best.method} has the best mean."
    if best.p_value is None:
        return f"{first} Whether it beats the others cannot be said: {best.reason}."
    found = "It beats every other" if best.is_best else "It is not told from its nearest rival"
    return f"{first} {found} (p {p_text(best.p_value)}, corrected for all pairs)."


class Kind(enum.StrEnum):
    """The verdict on ours against theirs."""

    BETTER = "better"
    WORSE = "worse"
    EQUIVALENT = "equivalent"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Margin:
    """The smallest difference that matters, in the metric's unit: a share of items, or nats per token."""

    value: float
    higher_is_better: bool
    reason: str

    @property
    def text(self) -> str:
        """Return the margin in words: "1 point", "0.0061 nats"."""
        if not self.higher_is_better:
            return f"{nats_text(self.value)} nats"
        points = f"{100 * self.value:g}"
        return f"{points} point{'' if points == '1' else 's'}"


@dataclass(frozen=True)
class Verdict:
    """A verdict with what it rests on. `words` is what a report writes after the method's name."""

    kind: Kind
    differs_from_zero: bool | None  # None where there is no interval
    interval: CrossedInterval
    margin: Margin
    words: str


def accuracy_margin(num_items: int, discordance: float = DISCORDANCE) -> Margin:
    """Return 1 point where `num_items` pooled over the tasks can show equivalence within it, else 2 points.

    Items needed: discordance (z_0.95 + z_0.90)^2 / d^2, the sample size of two one-sided tests on paired answers with
    seeds that do not matter (17,128 for 1 point, 4,282 for 2).
    """
    needed = items_for_equivalence(SMALL_POINTS, discordance)
    enough = num_items >= needed
    relation = "enough" if enough else f"fewer than the {needed:,} it takes"
    reason = f"{num_items:,} test items are {relation} to show equivalence within 1 point"
    return Margin(SMALL_POINTS if enough else LARGE_POINTS, True, reason)


def loss_margin(baseline_nats: float) -> Margin:
    """Return 1 % of the baseline's loss."""
    if not baseline_nats > 0:
        raise ValueError(f"loss margin: got a baseline of {baseline_nats} nats, expected a positive loss")
    return Margin(LOSS_SHARE * baseline_nats, False, f"1 % of the baseline's loss of {nats_text(baseline_nats)} nats")


def items_for_equivalence(margin: float, discordance: float = DISCORDANCE) -> int:
    """Return how many items show that equal methods are equivalent within `margin`, with a chance of 80 %."""
    from scipy.special import ndtri

    quantiles = ndtri(0.95) + ndtri((1 + EQUIVALENCE_POWER) / 2)
    return int(-(-discordance * quantiles**2 // margin**2))


def decide(interval: CrossedInterval, margin: Margin) -> Verdict:
    """Return the verdict on ours against theirs, where `interval` is of ours - theirs in the margin's unit."""
    if not margin.value > 0:
        raise ValueError(f"margin: got {margin.value}, expected a positive difference")
    ends = _towards_better(interval, margin)
    if ends is None:
        return Verdict(Kind.UNDECIDED, None, interval, margin, f"undecided: {interval.reason}")
    low95, high95, low90, high90 = ends
    differs = low95 > 0 or high95 < 0
    if interval.scope is Scope.ITEMS:
        words = f"undecided at {margin.text}: one seed says nothing of other seeds"
        return Verdict(Kind.UNDECIDED, differs, interval, margin, words)
    if low95 > margin.value:
        return Verdict(Kind.BETTER, differs, interval, margin, f"better by more than {margin.text}")
    if high95 < -margin.value:
        return Verdict(Kind.WORSE, differs, interval, margin, f"worse by more than {margin.text}")
    side = f"{'better' if low95 > 0 else 'worse'}, " if differs else ""
    if low90 >= -margin.value and high90 <= margin.value:
        words = f"{side}but equivalent within {margin.text}" if side else f"equivalent within {margin.text}"
        return Verdict(Kind.EQUIVALENT, differs, interval, margin, words)
    words = f"{side}but undecided at {margin.text}" if side else f"undecided at {margin.text}"
    return Verdict(Kind.UNDECIDED, differs, interval, margin, words)


def _towards_better(interval: CrossedInterval, margin: Margin) -> tuple[float, float, float, float] | None:
    """Return low95, high95, low90, high90 with the sign that makes larger better; None where there is no interval."""
    if interval.low95 is None or interval.high95 is None or interval.low90 is None or interval.high90 is None:
        return None
    if margin.higher_is_better:
        return interval.low95, interval.high95, interval.low90, interval.high90
    return -interval.high95, -interval.low95, -interval.high90, -interval.low90
