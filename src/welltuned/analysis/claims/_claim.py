"""What a claim is, what is found of it, and the one rule by which an interval decides.

Every claim comes down to one number with an interval and a region of values in which it holds. It is supported where
the interval lies inside the region, contradicted where it lies outside, and undecided else. Where a claim says "for
all" or "there is", the number is the smallest or largest of a family, with simultaneous intervals (Bonferroni).
"""

import enum
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from welltuned.analysis.estimate import CONFIDENCE, Estimate
from welltuned.analysis.runs import Table


class Verdict(enum.StrEnum):
    """What the table says of a claim."""

    SUPPORTED = "supported"
    CONTRADICTED = "contradicted"
    UNDECIDED = "undecided"
    NOT_APPLICABLE = "not applicable"


@dataclass(frozen=True)
class Answer:
    """What an evaluation returns: a verdict with its number in `unit`, or what the table lacks."""

    verdict: Verdict
    number: Estimate | None
    unit: str
    detail: str  # where not applicable: "the table lacks ..."


@dataclass(frozen=True)
class Claim:
    """One falsifiable statement of the literature."""

    id: str
    statement: str
    source: str
    needs: str  # what a table must have
    estimator: str
    threshold: str
    evaluate: Callable[[Table], Answer]


@dataclass(frozen=True)
class Finding:
    """A claim with its answer on one table, whose metric is named."""

    claim: Claim
    metric: str
    answer: Answer

    @property
    def verdict(self) -> Verdict:
        """Return the answer's verdict."""
        return self.answer.verdict


def lacks(what: str, number: Estimate | None = None, unit: str = "") -> Answer:
    """Return the answer of a table that cannot reach the claim."""
    return Answer(Verdict.NOT_APPLICABLE, number, unit, f"the table lacks {what}")


def judge(number: Estimate, unit: str, low: float = -math.inf, high: float = math.inf, detail: str = "") -> Answer:
    """Return the verdict on "the number lies in [low, high]"."""
    if number.low is None or number.high is None:
        return lacks(f"what an interval needs ({number.basis.removeprefix('no interval: ')})", number, unit)
    if low <= number.low and number.high <= high:
        verdict = Verdict.SUPPORTED
    elif number.high < low or number.low > high:
        verdict = Verdict.CONTRADICTED
    else:
        verdict = Verdict.UNDECIDED
    return Answer(verdict, number, unit, detail)


def simultaneous(size: int) -> float:
    """Return the level of each of `size` intervals that together hold with 95 % (Bonferroni)."""
    return 1 - (1 - CONFIDENCE) / max(size, 1)


def smallest(family: Sequence[Estimate]) -> Estimate:
    """Return the smallest member's value, bounded by the smallest bounds; needs simultaneous intervals."""
    return _extreme(family, min)


def largest(family: Sequence[Estimate]) -> Estimate:
    """Return the largest member's value, bounded by the largest bounds; needs simultaneous intervals."""
    return _extreme(family, max)


def _extreme(family: Sequence[Estimate], pick: Callable[[Sequence[float]], float]) -> Estimate:
    value = pick([one.value for one in family])
    lows = [one.low for one in family if one.low is not None]
    highs = [one.high for one in family if one.high is not None]
    if len(lows) < len(family) or len(highs) < len(family):
        return Estimate(value, None, None, next(one.basis for one in family if one.low is None))
    bases = dict.fromkeys(one.basis for one in family)
    basis = next(iter(bases)) if len(bases) == 1 else f"{len(family)} simultaneous intervals, Student's t over seeds"
    return Estimate(value, pick(lows), pick(highs), basis)


def magnitude(one: Estimate) -> Estimate:
    """Return |x| with its interval."""
    if one.low is None or one.high is None:
        return Estimate(abs(one.value), None, None, one.basis)
    return Estimate(abs(one.value), max(0.0, one.low, -one.high), max(abs(one.low), abs(one.high)), one.basis)
