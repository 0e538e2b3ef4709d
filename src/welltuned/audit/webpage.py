"""An audit as one HTML file that needs nothing but itself: the report's frame, policy, style and tables.

It says what the Markdown page says (content.py); only what is long is folded. Text that is not ours is rid of what
cannot be shown, cut, and escaped.
"""

from welltuned.audit import content
from welltuned.audit.assemble import Audit
from welltuned.audit.content import Section
from welltuned.audit.tables import TextTable
from welltuned.report import clean, frame, provenance, table
from welltuned.report.table import escaped

MOST_LETTERS = 2000  # of one text on the page; audit.json has all of it. Assumed: about a third of a printed page
MOST_ROWS = 500  # of one table; the CSV files have all. Assumed


def page(audit: Audit) -> str:
    """Return the page."""
    title = _shown(content.title(audit))
    header = f"<h1>{escaped(title)}</h1><p>{escaped(_shown(content.opening(audit)))}</p>"
    verdict = "\n".join(f"<p class=answer>{escaped(_shown(sentence))}</p>" for sentence in audit.verdict)
    sections = {"Verdict": verdict} | {part.title: _section(part) for part in content.sections(audit)}
    links = " · ".join(f'<a href="{name}">{name}</a>' for name in ("audit.md", "audit.json", "runs.csv"))
    footer = f"Made by welltuned {escaped(provenance.version())}. Everything for programs: {links}."
    return frame.document(title, header, sections, footer)


def _section(part: Section) -> str:
    doubts = [(one.serious, content.kind(one), _shown(one.text)) for one in part.findings]
    made = _table(part.title, part.table) if part.table else ""
    terms = {one.term: one.text for one in part.terms}
    return "\n".join(
        (
            frame.doubts(doubts) if doubts else "",
            frame.folded(part.folded, made) if part.folded else made,
            *(f"<p class=note>{escaped(_shown(text, 10 * MOST_LETTERS))}</p>" for text in part.texts),
            frame.facts(terms) if terms else "",
        )
    ).strip()


def _table(title: str, sheet: TextTable) -> str:
    shown = sheet.rows[:MOST_ROWS]
    left = len(sheet.rows) - len(shown)
    rest = f"<p class=note>And {left:,} rows more, in the CSV files.</p>" if left else ""
    rows = tuple(tuple(_shown(cell) for cell in row) for row in shown)
    header = tuple(_shown(name) for name in sheet.header)
    return table.html(table.Table(_shown(title), title, "", header, rows, (), num_text=sheet.num_text)) + rest


def _shown(text: str, letters: int = MOST_LETTERS) -> str:
    return clean.lines(text, letters)
