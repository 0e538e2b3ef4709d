"""Tables and figures as LaTeX, to be `\\input` by a two-column paper: booktabs rules, captions, every text escaped."""

import re
from pathlib import PurePath

from welltuned.report.table import Table

# What LaTeX reads as a command, and what its fonts make of a pair of signs ('' is one mark, ?` an inverted one).
ESCAPES = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "`": r"\textasciigrave{}",
    "'": r"'{}",
    '"': r"''",
    "[": r"{[}",  # after \\ a bracket or a star would be its argument
    "]": r"{]}",
    "*": r"{*}",
    "\n": " ",
    "\u00a0": "~",
    "–": "--",
    "−": "$-$",
    "×": r"$\times$",
    "±": r"$\pm$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "…": r"\ldots{}",
    "·": r"$\cdot$",
    "→": r"$\rightarrow$",
    "“": "``",
    "”": "''",
    "\u2019": "'",
    "η": r"$\eta$",
    "σ": r"$\sigma$",
    "α": r"$\alpha$",
    "β": r"$\beta$",
    "ρ": r"$\rho$",
    "�": r"\textbf{?}",
}
PDFLATEX_LAST = "\u017f"  # of the letters that pdfLaTeX's usual fonts have


def escaped(text: str) -> str:
    """Escape a text: LaTeX sets the letters that it holds and reads no command in it.

    >>> print(escaped("50 % of a_b"))
    50 \\% of a\\_b
    """
    apart = re.sub("-(?=-)", "-\0", text)  # two hyphens would become a dash
    return "".join(ESCAPES.get(letter, letter) for letter in apart).replace("\0", "{}")


def table(made: Table, source: str) -> str:
    """Return a table float over both columns; `source` names the study in a comment."""
    columns = "l" * made.num_text + "r" * (len(made.header) - made.num_text)
    head = " & ".join(escaped(text) for text in made.header)
    body = "\n".join(_row(row, number in made.strong) for number, row in enumerate(made.rows))
    caption = f"{made.title}. {made.note}".strip()
    return (
        f"{_opening(source, made, caption, 'booktabs, textcomp')}\\begin{{table*}}\n  \\centering\n  \\small\n"
        f"  \\caption{{{escaped(caption)}}}\n  \\label{{tab:{_label(made.name)}}}\n"
        f"  \\begin{{tabular}}{{@{{}}{columns}@{{}}}}\n    \\toprule\n    {head} \\\\\n    \\midrule\n{body}\n"
        "    \\bottomrule\n  \\end{tabular}\n\\end{table*}\n"
    )


def _row(row: tuple[str, ...], strong: bool) -> str:
    return "    " + " & ".join(_cell(text, strong) for text in row) + r" \\"


def _cell(text: str, strong: bool) -> str:
    first, _, rest = text.partition("\n")
    shown = rf"\textbf{{{escaped(first)}}}" if strong and first else escaped(first)
    return shown + (rf" {{\scriptsize {escaped(rest)}}}" if rest else "")


def figure(pdf: str, title: str, caption: str, over_both_columns: bool, source: str) -> str:
    """Return a figure float that includes the PDF at its own size, so that its letters keep theirs."""
    name = PurePath(pdf).stem
    kind = "figure*" if over_both_columns else "figure"
    return (
        f"{_opening(source, None, title + caption, 'graphicx, textcomp')}\\begin{{{kind}}}\n  \\centering\n"
        f"  \\includegraphics{{{pdf}}}\n  \\caption{{{escaped(f'{title}. {caption}')}}}\n"
        f"  \\label{{fig:{_label(name)}}}\n\\end{{{kind}}}\n"
    )


def _opening(source: str, made: Table | None, caption: str, packages: str) -> str:
    texts = [caption, *(cell for row in made.rows for cell in row)] if made else [caption]
    beyond = any(letter > PDFLATEX_LAST and letter not in ESCAPES for text in texts for letter in text)
    font = "% Holds letters beyond Latin: use LuaLaTeX or XeLaTeX with a font that has them.\n" if beyond else ""
    return f"% {_comment(source)}\n% Needs \\usepackage{{{packages}}}\n{font}"


def _comment(text: str) -> str:
    return text.replace("\n", " ")


def _label(name: str) -> str:
    return name.replace("_", "-")
