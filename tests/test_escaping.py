"""Names from outside are inert and fit to be shown: on the page, in the drawings, in LaTeX, however odd or long."""

import dataclasses
import re
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree

import pytest

import synthetic
from synthetic import Design, Valley
from welltuned.report import build, clean, latex
from welltuned.report.table import Table, escaped

ODD = (
    "<script>alert(1)</script>",
    "</style><b>",
    "javascript:alert(1)",
    "a\x00b\x1b[31m\u202e",
    "x" * 10_000_000,
)
TEX = "\\input{/etc/passwd} $x_1^2$ 50 % & #1 ~ {a} [b] * a--b `` '' \" < > | ηαβ ≤≥×±–−…"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return the report of a study whose methods, task, base and name are all odd."""
    valleys = tuple(Valley(name, -2.5 - 0.1 * number) for number, name in enumerate(ODD))
    changes = {"task": ODD[0], "base": ODD[4], "prompt_template": ODD[3]}
    results, declaration = synthetic.study(Design(valleys=valleys, batches=(4, 16), changes=changes, fresh_seeds=2))
    declaration = dataclasses.replace(declaration, name=ODD[0], spec_text=f'name = "{ODD[1]}{ODD[3]}"\n' + ODD[4])
    made = tmp_path_factory.mktemp("report")
    build(results, declaration, made)
    return made


def test_markup_in_names_is_text_on_the_page(folder):
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert "<script" not in text and text.count("</style>") == 1 and 'href="javascript:' not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text and "javascript:alert(1)" in text
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\ud800-\udfff]", text)


def test_a_name_of_ten_million_letters_does_not_fill_the_page(folder):
    assert (folder / "report.html").stat().st_size < 5_000_000
    assert (folder / "study.toml").stat().st_size > 10_000_000  # the whole declaration lies beside it


def test_every_drawing_is_well_formed_whatever_the_names(folder):
    paths = list((folder / "figures").glob("*.svg"))
    assert len(paths) > 6
    for path in paths:
        tags = {element.tag.rpartition("}")[2] for element in ElementTree.parse(path).getroot().iter()}
        assert "script" not in tags and "a" not in tags and "foreignObject" not in tags


def test_names_that_are_cut_stay_different():
    one, other = clean.line("x" * 1000 + "a"), clean.line("x" * 1000 + "b")
    assert one != other and len(one) <= clean.NAME_LETTERS and one == clean.line("x" * 1000 + "a")
    assert clean.line("lora") == "lora" and clean.line("a\nb\x00\ud800") == "a�b��"
    assert clean.lines("a\n" + "b" * 100, 10) == "a\n" + "b" * 8 + "\n… and 92 letters more"


def test_html_is_escaped_within_quotes_too():
    assert escaped("<a href='x' title=\"y\">&") == "&lt;a href=&#x27;x&#x27; title=&quot;y&quot;&gt;&amp;"


def test_latex_reads_no_command_in_a_text():
    text = latex.escaped(TEX)
    known = r"\\(textbackslash|textasciicircum|textasciitilde|textasciigrave|textless|textgreater|textbar|ldots)\{\}"
    rest = re.sub(known, "", text)
    rest = re.sub(r"\\[{}$&#%_]", "", rest)
    rest = re.sub(r"\$(-|\\(times|pm|leq|geq|eta|alpha|beta))\$", "", rest)
    assert not re.search(r"[\\$&#%_^~]", rest)
    assert latex.escaped("a--b") == "a-{}-b" and latex.escaped("[x]") == "{[}x{]}" and latex.escaped("*") == "{*}"


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex")
def test_latex_itself_sets_every_letter(tmp_path):
    made = Table("odd", TEX, TEX, (TEX, "b"), ((TEX, "[1]\n" + TEX), ("*", "2")), (), strong=frozenset({1}))
    (tmp_path / "t.tex").write_text(latex.table(made, TEX), encoding="utf-8")
    (tmp_path / "main.tex").write_text(
        "\\documentclass{article}\\usepackage{booktabs,textcomp,graphicx}\\begin{document}\\input{t}\\end{document}"
    )
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "main.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
