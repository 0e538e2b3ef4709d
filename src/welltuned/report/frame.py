"""The frame of a page that needs nothing but itself: policy, style sheet, contents, sections. No script, no request.

The report (report/page.py) and the audit (audit/webpage.py) are both set in it.
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence

from welltuned.report.css import CSS
from welltuned.report.table import escaped


def document(title: str, header: str, sections: Mapping[str, str], footer: str) -> str:
    """Return a whole page; `title` is text, the rest HTML. Sections without a text are left out."""
    shown = {name: text for name, text in sections.items() if text}
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_policy()}">\n'
        '<meta name="referrer" content="no-referrer">\n<meta name="color-scheme" content="light dark">\n'
        f"<title>{escaped(title)}</title>\n<style>{CSS}</style>\n</head>\n<body>\n<header>{header}</header>\n<main>\n"
        f"{_contents(shown)}\n"
        + "\n".join(_section(name, text) for name, text in shown.items())
        + f"\n</main>\n<footer>{footer}</footer>\n</body>\n</html>\n"
    )


def doubts(items: Sequence[tuple[bool, str, str]]) -> str:
    """Return a list of doubts: each whether it is serious, a word for it ("": none), and its text."""
    lines = "\n".join(
        f"<li{' class=serious' if serious else ''}><b>{escaped(word or ('serious' if serious else 'note'))}</b> "
        f"{escaped(text)}</li>"
        for serious, word, text in items
    )
    return f"<ul class=caveats>\n{lines}\n</ul>"


def facts(named: Mapping[str, str]) -> str:
    """Return names with what is said of each."""
    items = "".join(f"<dt>{escaped(name)}</dt><dd>{escaped(value)}</dd>\n" for name, value in named.items())
    return f"<dl>{items}</dl>"


def folded(words: str, text: str) -> str:
    """Return a text that the screen shows when asked to, and paper always."""
    return f"<details class=printed><summary>{escaped(words)}</summary>{text}</details>"


def _policy() -> str:
    """Allow this page's own style sheet by its hash, and nothing else: no script, no inline style, no request."""
    digest = base64.b64encode(hashlib.sha256(CSS.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def _section(title: str, text: str) -> str:
    name = _id(title)
    return f'<section aria-labelledby="{name}">\n<h2 id="{name}">{title}</h2>\n{text}\n</section>'


def _id(title: str) -> str:
    return title.lower().replace(" ", "-")


def _contents(sections: Mapping[str, str]) -> str:
    links = " ".join(f'<a href="#{_id(title)}">{title}</a>' for title in sections)
    return f'<nav aria-label="Contents">{links}</nav>'
