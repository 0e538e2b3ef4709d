"""An audit as a Markdown page that can be read as it is, or pasted into a review: verdict, findings, tables, reading.

Text that is not ours (names of methods, models, files) is escaped: it can neither break a table nor become markup.
"""

import re

from welltuned.analysis.wording import DASH
from welltuned.audit import content
from welltuned.audit.assemble import Audit
from welltuned.audit.content import Section
from welltuned.audit.tables import TextTable


def page(audit: Audit) -> str:
    """Return the page."""
    head = [f"# {escaped(content.title(audit))}", "", escaped(content.opening(audit)), ""]
    verdict = [f"**{escaped(sentence)}**\n" for sentence in audit.verdict]
    return "\n".join([*head, *verdict, *(line for part in content.sections(audit) for line in _section(part))])


def _section(part: Section) -> list[str]:
    lines = [f"## {part.title}", ""]
    kinds = [f"**{content.kind(one)}**" if one.serious else content.kind(one) for one in part.findings]
    lines += [f"- {kind}: {escaped(one.text)}" for kind, one in zip(kinds, part.findings, strict=True)]
    lines += [f"- **{one.term}.** {escaped(one.text)}" for one in part.terms]
    lines += [""] if part.findings or part.terms else []
    lines += [table(part.table), ""] if part.table else []
    return lines + [line for text in part.texts for line in (escaped(text), "")]


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
