"""How the ledger reads: a claim's number with its interval, the count of verdicts, and a row for a file."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from welltuned.analysis.claims._claim import Answer, Finding, Verdict
from welltuned.analysis.wording import DASH


def number_text(answer: Answer) -> str:
    """Write a claim's number with its interval and unit, and what the interval rests on after a line break."""
    number = answer.number
    if number is None:
        return DASH
    span = "" if number.low is None or number.high is None else f" [{_digits(number.low)}, {_digits(number.high)}]"
    return f"{_digits(number.value)}{span} {answer.unit}\n{number.basis}"


def missing_text(found: Finding) -> str:
    """Return what the table lacks for a claim that it cannot reach, without "the table lacks"."""
    return found.answer.detail.removeprefix("the table lacks ")


def counted(ledger: Sequence[Finding]) -> str:
    """Count the claims by what the table says of them, and name those that it decides."""
    of: dict[Verdict, list[str]] = {verdict: [] for verdict in Verdict}
    for found in ledger:
        of[found.verdict].append(found.claim.id)
    decided = [f"{verdict.value}: {', '.join(of[verdict])}" for verdict in list(Verdict)[:2] if of[verdict]]
    rest = f"{len(of[Verdict.UNDECIDED])} undecided, {len(of[Verdict.NOT_APPLICABLE])} out of this table's reach"
    return "; ".join([*decided, rest])


def record(found: Finding) -> Mapping[str, Any]:
    """Return a claim's row of a CSV file: bare numbers, None where there is none."""
    number = found.answer.number
    return {
        "claim": found.claim.id,
        "statement": found.claim.statement,
        "source": found.claim.source,
        "threshold": found.claim.threshold,
        "verdict": found.verdict.value,
        "value": None if number is None else _finite(number.value),
        "low": None if number is None else _finite(number.low),
        "high": None if number is None else _finite(number.high),
        "unit": found.answer.unit,
        "basis": "" if number is None else number.basis,
        "detail": found.answer.detail,
    }


def _digits(value: float) -> str:
    """Write three digits; an end that nothing bounds is infinite.

    >>> _digits(-12.345), _digits(math.inf)
    ('−12.3', '∞')
    """
    return f"{value:.3g}".replace("inf", "∞").replace("-", "−")


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
