"""The claims of the literature, each a small file, and the ledger: what one table says of every one of them.

A claim is a frozen `Claim` in the tuple CLAIMS of its file; a new file is in the ledger the day it appears. Nothing is
decided by a point estimate: undecided is a common, honest answer, and a table that cannot reach a claim says what it
lacks. A claim is known by its number, P1 to P33, here and in the report.
"""

import functools
import importlib
import pkgutil
import re

from welltuned.analysis.claims._claim import Answer, Claim, Finding, Verdict
from welltuned.analysis.claims._told import counted, missing_text, number_text, record
from welltuned.analysis.runs import Table

__all__ = [
    "Answer",
    "Claim",
    "Finding",
    "Verdict",
    "claims",
    "counted",
    "ledger",
    "missing_text",
    "number_text",
    "record",
]


@functools.cache
def claims() -> tuple[Claim, ...]:
    """Return all claims in the order of their numbers."""
    names = [module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_")]
    modules = [importlib.import_module(f"{__name__}.{name}") for name in names]
    found: list[Claim] = [claim for module in modules for claim in module.CLAIMS]
    return tuple(sorted(found, key=_order))


def _order(claim: Claim) -> tuple[int, str]:
    number = re.match(r"P(\d+)", claim.id)
    return (int(number.group(1)) if number else 0, claim.id)


def ledger(table: Table) -> tuple[Finding, ...]:
    """Evaluate every claim on a table."""
    return tuple(Finding(claim, table.metric, claim.evaluate(table)) for claim in claims())
