"""The ledger of claims as the report's table: what this study says of every claim of the literature.

The claims are read on the validation loss of all trials and reruns, where learning rates are tuned. Most studies reach
a few of them only, so the table is folded on the page; the claims that are decided stand first.
"""

from collections.abc import Sequence

from welltuned.analysis import claims
from welltuned.analysis.claims import Finding, Verdict
from welltuned.analysis.runs import of_results
from welltuned.analysis.wording import DASH, plural
from welltuned.records import Result
from welltuned.report.table import Table


def ledger(results: Sequence[Result]) -> tuple[Table, ...]:
    """Return the ledger of a study, no table where no trial has a score."""
    table = of_results(results)
    return (claims_table(claims.ledger(table)),) if table.runs else ()


def claims_table(found: Sequence[Finding]) -> Table:
    """Return every claim with its statement, number, interval and state; what is out of reach with what is missing."""
    order = list(Verdict)
    shown = sorted(found, key=lambda one: order.index(one.verdict))
    return Table(
        name="claims",
        title="Claims of the literature",
        note=f"What the validation loss of this study says of {plural(len(found), 'published claim')}: "
        f"{claims.counted(found)}. A claim comes down to one number with an interval: supported where it lies within "
        "what the claim says, contradicted where it lies outside, else undecided. Each is judged by itself, at 5 %: of "
        "many, one may be decided wrongly.",
        header=("claim", "holds where", "this study says", "number", "detail, or what is missing"),
        rows=tuple(_row(one) for one in shown),
        records=tuple(claims.record(one) for one in shown),
        num_text=5,
        strong=frozenset(n for n, one in enumerate(shown) if one.verdict in (Verdict.SUPPORTED, Verdict.CONTRADICTED)),
        folded=f"Show all {len(found)}",
    )


def _row(one: Finding) -> tuple[str, ...]:
    reached = one.verdict is not Verdict.NOT_APPLICABLE
    detail = (one.answer.detail or DASH) if reached else f"missing: {claims.missing_text(one)}"
    statement = f"{one.claim.id} {one.claim.statement}\n{one.claim.source}"
    return statement, one.claim.threshold, one.verdict.value, claims.number_text(one.answer), detail
