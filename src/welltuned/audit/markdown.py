"""An audit as a Markdown page that can be read as it is, or pasted into a review: verdict, findings, tables, reading.

Text that is not ours (names of methods, models, files) is escaped: it can neither break a table nor become markup.
"""

import re
from collections.abc import Sequence

from welltuned.analysis.claims import Verdict
from welltuned.analysis.wording import DASH
from welltuned.audit.assemble import Audit
from welltuned.audit.tables import TextTable, claims_sheet, conclusions_sheet, flips_sheet, reading, tuned_sheet

HOW = """- **Baseline.** Tuned means at least 3 learning rates, 3 batch sizes and 2 ranks (the criterion of the audit of
  64 papers in arXiv 2602.04998). What a table does not say neither meets nor fails it.
- **Edge.** The best value is the lowest or highest of those tried at the method's best configuration.
- **Noise.** The standard error of a difference: low, if two methods agree on most test items, and high, if they answer
  independently; seeds by paired or Welch's t, else from repeats pooled over configurations; items binomial.
- **Survives.** The loser was tuned (3 learning rates, the best inside, no fewer batch sizes and ranks than the winner),
  and the difference exceeds the high noise, with Holm's correction, and after what choosing the best of k adds
  (sigma sqrt(2 ln k)).
- **Does not survive.** The difference lies within the low noise.
- **Cannot be told.** Everything else; the reasons stand beside it.
- **Claims.** Each is one number with an interval and a region: supported inside it, contradicted outside, else
  undecided."""


def page(audit: Audit) -> str:
    """Return the page."""
    side = audit.book.judging
    which = "higher" if side.higher_is_better else "lower"
    lines = [
        f"# Audit of {escaped(audit.book.source)}",
        "",
        f"Metric: {escaped(side.metric)} ({which} is better). Baseline: {escaped(audit.baseline)}.",
        "",
        *(f"**{escaped(sentence)}**\n" for sentence in audit.verdict),
        "## Findings",
        "",
        *(f"- {'**' + one.kind + '**' if one.serious else one.kind}: {escaped(one.text)}" for one in audit.findings),
        "",
        "## What was tuned for whom",
        "",
        table(tuned_sheet(audit)),
        "",
        *_section("Which conclusions survive", conclusions_sheet(audit), "The table compares no methods."),
        *_section("Flips", flips_sheet(audit), "No method shares two or more configurations with the baseline."),
        *_section("Claims of the literature", claims_sheet(audit), "The table can reach none of them."),
        *_unreached(audit),
        "## How the table was read",
        "",
        table(reading(audit)),
        "",
        "## How each finding is computed",
        "",
        HOW,
        "",
    ]
    return "\n".join(lines)


def _unreached(audit: Audit) -> Sequence[str]:
    """Say what the table lacks for the claims that it cannot reach."""
    rest = [found for found in audit.claims if found.verdict is Verdict.NOT_APPLICABLE]
    told = "; ".join(f"{found.claim.id}: {found.answer.detail.removeprefix('the table lacks ')}" for found in rest)
    return (f"Out of reach, for want of: {escaped(told)}.", "") if rest else ()


def table(sheet: TextTable) -> str:
    """Return a Markdown table; numbers are set to the right."""
    heads = [escaped(name) for name in sheet.header]
    rule = ["---" if number < sheet.num_text else "--:" for number in range(len(heads))]
    rows = [heads, rule, *([escaped(cell) for cell in row] for row in sheet.rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def escaped(text: str) -> str:
    r"""Escape what Markdown or HTML would take as markup.

    >>> escaped("a|b <i>*c*</i>")
    'a\\|b &lt;i&gt;\\*c\\*&lt;/i&gt;'
    """
    plain = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("\n", " ")
    return re.sub(r"([\\`*_\[\]|#])", r"\\\1", plain) or DASH


def _section(title: str, sheet: TextTable, empty: str) -> Sequence[str]:
    return (f"## {title}", "", table(sheet) if sheet.rows else empty, "")
