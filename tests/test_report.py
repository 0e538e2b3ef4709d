"""The page: every planted caveat is on it, names are inert, nothing is a NaN, and every SVG is well-formed."""

import base64
import csv
import dataclasses
import hashlib
import math
import re
import xml.etree.ElementTree as ElementTree
from html import escape, unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest
from matplotlib.figure import Figure

import synthetic
from synthetic import Design, Valley
from welltuned import plugins
from welltuned.analysis import claims, summary
from welltuned.analysis.caveats import caveats
from welltuned.analysis.claims import Verdict
from welltuned.analysis.runs import of_results
from welltuned.analysis.wording import DASH
from welltuned.figures import _ink
from welltuned.records import Role, Status
from welltuned.report import build, files, provenance
from welltuned.report.answer import answers
from welltuned.report.css import DARK_INK
from welltuned.report.svg import SVG, finish

VOID = {"meta", "br", "link", "img"}


class Reader(HTMLParser):
    """Reads a page: its tags, its text, and whether every tag is closed in its order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.words: list[str] = []
        self.titles: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        (self.titles if self.open and self.open[-1] == "title" else self.words).append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.words).replace("\xa0", " "))


def cells_of(table: str) -> list[list[str]]:
    """Return the texts of every row's cells, the heading's row aside."""
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", table, re.DOTALL)[1:]
    cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in rows]
    return [[unescape(re.sub("<[^>]+>", " ", cell)).replace("\xa0", " ").strip() for cell in row] for row in cells]


FIGURES = sorted(set(plugins.names("figures")) - {"differences"})  # which needs a verdict: test_compare.py


@pytest.fixture(scope="module")
def spoilt():
    """Return a study with most of what can be wrong in it."""
    results, declaration = synthetic.study(Design(noise=0.004, fresh_seeds=2))
    last = next(one for one in reversed(results) if one.role is Role.SELECT)
    results = tuple(dataclasses.replace(one, status=Status.LOST) if one is last else one for one in results)
    survey = dataclasses.replace(synthetic.SURVEY, num_truncated=3, num_dropped=2, num_duplicates=1)
    return results, dataclasses.replace(
        declaration,
        name="<script>alert(1)</script> & 'more'",
        spec_text='name = "<script>alert(1)</script>"\n',
        surveys=(survey,),
        environments=('{"torch": "2.13.0", "note": "<b>"}', '{"torch": "2.14.0", "threads": 2}'),
        num_test_reads=2,
        num_lost=1,
        finished=False,
        num_planned=140,
    )


@pytest.fixture(scope="module")
def folder(spoilt, tmp_path_factory) -> Path:
    """Return a folder with the spoilt study's report."""
    folder = tmp_path_factory.mktemp("report")
    assert build(*spoilt, folder) == folder / "report.html"
    return folder


@pytest.fixture(scope="module")
def page(folder) -> Reader:
    """Return the page, read."""
    return Reader((folder / "report.html").read_text(encoding="utf-8"))


def test_every_tag_is_closed(page):
    assert page.open == []


def test_every_caveat_is_on_the_page_and_before_the_tables(page, spoilt):
    found = caveats(*spoilt)
    assert {caveat.kind for caveat in found} >= {
        "diverged",
        "single seed",
        "batch edge",
        "environments",
        "duplicates",
        "truncated",
        "dropped",
        "test reads",
        "lost",
        "unscored",
        "unfinished",
    }
    for caveat in found:
        assert caveat.text in page.text
        assert page.text.index(caveat.text) < page.text.index("Test accuracy at the tuned learning rate")


def test_the_sections_stand_in_the_order_of_a_reader(page, folder):
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert re.findall(r"<h2 id=[^>]+>([^<]+)", text) == [
        "Answer",
        "Caveats",
        "Figures",
        "Tables",
        "Declaration",
        "Provenance",
        "How to reproduce",
        "Terms",
    ]
    assert re.findall(r"<h3>([^<]+)", text.partition("Tables</h2>")[0]) == [
        escape(plugins.load("figures", name).title)
        for name in [*sorted(FIGURES, key=lambda name: plugins.load("figures", name).position), "differences"]
    ]  # the last was not drawn, for want of a verdict


def test_a_name_with_a_script_is_inert(page, folder):
    assert "script" not in page.tags and "b" in page.tags
    assert "<script" not in (folder / "report.html").read_text(encoding="utf-8")
    assert page.text.count("<script>alert(1)</script>") == 2  # the heading and the declaration
    assert "<b>" in page.text  # the environment's note


def test_the_page_needs_nothing_from_elsewhere(folder):
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert not re.search(r'(src|href)="?https?:', text)
    assert set(re.findall(r'https?://[^"\s<]+', text)) <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    links = set(re.findall(r'\bhref="([^"#]+)"', text))
    assert links and all((folder / link).is_file() for link in links)


def test_the_policy_allows_the_pages_own_style_sheet_and_nothing_else(folder):
    text = (folder / "report.html").read_text(encoding="utf-8")
    (sheet,) = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(sheet.encode()).digest()).decode()
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]+)"', text)
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    assert not re.search(r"<[^>]+\sstyle=", text) and "unsafe" not in text


def test_every_colour_of_a_figure_is_named_and_has_one_on_a_dark_ground(folder):
    """A colour that the style sheet does not know would stay as it is: dark on dark."""
    tiles = {str(name) for name in re.findall(r'fill="(#\w+)"', (folder / "figures/heatmap.svg").read_text())}
    kept = {_ink.ON_LIGHT, _ink.ON_DARK} | tiles
    for path in (folder / "figures").glob("*.svg"):
        for colour in re.findall(r'(?:fill|stroke)="(#\w+)"', path.read_text(encoding="utf-8")):
            assert colour in DARK_INK or colour in kept, f"{path.name}: {colour}"
    named = {*_ink.COLOURS, _ink.INK, _ink.SOFT, _ink.GRID, _ink.PAPER, _ink.BLANK}
    assert {colour.lower() for colour in named} == set(DARK_INK)


def test_nothing_reads_nan_or_none(folder, page):
    for text in [page.text, *page.titles, *(path.read_text(encoding="utf-8") for path in folder.rglob("*.csv"))]:
        assert not re.search(r"\b(nan|inf|None|NaN)\b", text)


def test_the_ledger_is_on_the_page_folded_and_in_its_files(folder, page, spoilt):
    """Every claim with the state, the number and the interval that the analysis gives for the study's losses."""
    found = claims.ledger(of_results(spoilt[0]))
    html = (folder / "report.html").read_text(encoding="utf-8")
    table = (folder / "tables" / "claims.csv").read_text(encoding="utf-8")
    (block,) = re.findall(r"<h3>Claims of the literature</h3>\n<details class=printed>(.*?)</details>", html, re.DOTALL)
    cells = {row[0].split()[0]: row for row in cells_of(block)}
    rows = {row["claim"]: row for row in csv.DictReader(table.splitlines())}
    assert set(cells) == set(rows) == {one.claim.id for one in found}
    assert {one.verdict for one in found} >= {Verdict.SUPPORTED, Verdict.UNDECIDED, Verdict.NOT_APPLICABLE}
    for one in found:
        cell, row, number = cells[one.claim.id], rows[one.claim.id], one.answer.number
        assert one.claim.statement in cell[0] and cell[2] == row["verdict"] == one.verdict
        if one.verdict is Verdict.NOT_APPLICABLE:
            assert cell[4] == "missing: " + one.answer.detail.removeprefix("the table lacks ")
        if number is None:
            assert row["value"] == "" and cell[3] == DASH
        else:
            assert one.answer.unit in cell[3]
            assert row["value"] == ("" if math.isinf(number.value) else str(number.value))
            assert number.low is None or f"[{number.low:.3g}".replace("-", "−").replace("inf", "∞") in cell[3]
    assert [row["claim"] for row in rows.values()] == [cell[0].split()[0] for cell in cells.values()]
    assert claims.counted(found) in page.text


def test_an_unfinished_study_says_so(page):
    assert "welltuned study, unfinished" in page.text
    assert "The study is unfinished: 117 of 140 trials have ended." in page.text


def test_the_declaration_is_shown_with_its_hash(page, spoilt):
    assert spoilt[1].spec_hash in page.text and spoilt[1].spec_text.strip() in page.text


def test_the_declaration_says_on_what_the_trials_ran():
    text = provenance.hardware(('{"processor": "EPYC 9", "threads": 2, "device": "cpu"}', '{"machine": "arm64"}'))
    assert text == "Trials ran on: EPYC 9 (2 threads, device cpu); arm64."
    assert provenance.hardware(()) == ""


def test_every_figure_is_inlined_with_tooltips_and_unique_ids(page, folder):
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert page.tags.count("svg") == len(FIGURES)
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    referred = set(re.findall(r'href="#([^"]+)"', text)) | set(re.findall(r"url\(#([^)]+)\)", text))
    assert referred <= set(ids)
    assert any(title.startswith("lora, batch 16, learning rate") for title in page.titles)
    assert "tip:" not in text


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_lies_beside_the_page_in_five_formats(name, folder):
    root = ElementTree.fromstring((folder / "figures" / f"{name}.svg").read_text(encoding="utf-8"))
    assert root.tag == f"{{{SVG}}}svg" and root.get("role") == "img" and root.get("aria-label")
    texts = ["".join(element.itertext()) for element in root.iter(f"{{{SVG}}}text")]
    assert any(
        word in " ".join(texts) for word in ("batch", "trials of tuning", "seconds of a trial")
    )  # text stays text
    assert any(element.tag == f"{{{SVG}}}title" for element in root.iter())
    assert (folder / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "figures" / f"{name}.pdf").read_bytes().startswith(b"%PDF")
    with (folder / "figures" / f"{name}.csv").open(encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) >= 3
    snippet = (folder / "figures" / f"{name}.tex").read_text(encoding="utf-8")
    assert f"\\includegraphics{{{name}.pdf}}" in snippet and "\\caption{" in snippet


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_as_wide_as_one_column_of_a_paper_or_two(name, folder):
    width = float(re.search(r'width="([\d.]+)pt"', (folder / "figures" / f"{name}.svg").read_text()).group(1)) / 72
    assert width in (pytest.approx(3.25), pytest.approx(6.75))
    snippet = (folder / "figures" / f"{name}.tex").read_text(encoding="utf-8")
    assert ("\\begin{figure*}" in snippet) == (width > 4)


@pytest.mark.parametrize("name", FIGURES)
def test_what_is_read_out_of_a_figure_states_its_numbers(name, spoilt, folder):
    picture = plugins.load("figures", name)
    text = picture.alt(picture.compute(*spoilt))
    root = ElementTree.fromstring((folder / "figures" / f"{name}.svg").read_text(encoding="utf-8"))
    assert root.get("aria-label") == f"{picture.title}. {text}"
    named = ("method", "learning rate") if name == "attribution" else ("lora", "milora", "pissa")
    assert all(word in text for word in named) and text.endswith(".")
    assert len(re.findall(r"\d", text)) > 20


def test_results_csv_has_a_row_for_each_trial(folder, spoilt):
    with (folder / "results.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["trial_id"] for row in rows] == [one.trial_id for one in spoilt[0]]
    assert float(rows[3]["validation_nll"]) == spoilt[0][3].validation_nll
    assert rows[0]["test_accuracy"] == ""


def test_the_same_results_give_the_same_bytes(folder, spoilt, tmp_path):
    build(*spoilt, tmp_path)
    for path in folder.rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (tmp_path / path.relative_to(folder)).read_bytes(), path.name


def test_a_second_report_leaves_nothing_of_the_first(spoilt, tmp_path):
    (tmp_path / "figures").mkdir()
    (tmp_path / "tables").mkdir()
    for name in ("heatmap.png", "throughput.csv", "heatmap.tex", "../tables/cost.tex", "../report.html"):
        (tmp_path / "figures" / name).write_text("of an earlier report", encoding="utf-8")
    build((), spoilt[1], tmp_path)
    assert list((tmp_path / "figures").iterdir()) == [] == list((tmp_path / "tables").iterdir())
    text = Reader((tmp_path / "report.html").read_text(encoding="utf-8")).text
    assert (
        "earlier report" not in text
        and "No trial has ended yet." in text
        and "Not drawn: no trial has a recorded time." in text
    )


def test_one_method_without_a_graded_test_still_makes_a_report(tmp_path):
    results, declaration = synthetic.study(Design(valleys=(Valley("lora", -2.5),), batches=(16,), graded=False))
    text = Reader(build(results, declaration, tmp_path).read_text(encoding="utf-8")).text
    assert "lora reaches a validation loss of 0.4" in text and "nothing to compare it with" in text
    assert "test accuracy" not in text.partition("Terms")[0]


# The answer -----------------------------------------------------------------------------------------------------------


def answer_of(design: Design) -> str:
    results, declaration = synthetic.study(design)
    return " ".join(answers(summary.summarise(results, declaration.cell)))


def test_equal_methods_are_not_told_apart():
    results, declaration = synthetic.study(Design(valleys=(Valley("lora", -2.5),), graded=False))
    shifts = {1000: 0.01, 1001: -0.01, 1002: 0.001}  # a twin whose fresh seeds differ by chance only
    twin = tuple(
        dataclasses.replace(
            one,
            config=one.config.replace(method="twin"),
            validation_nll=one.validation_nll + shifts.get(one.config.init_seed, 0.0),
        )
        for one in results
    )
    text = " ".join(answers(summary.summarise(results + twin, declaration.cell)))
    assert text.endswith("the two are not told apart.")


def test_a_planted_difference_is_told():
    valleys = (Valley("lora", -2.5), Valley("pissa", -2.5, floor=0.8))
    text = answer_of(Design(valleys=valleys, noise=0.003, graded=False))
    assert text.startswith("Tuned on validation and rerun on 3 fresh seeds, lora has the lowest validation loss: 0.")
    gap = float(re.search(r"runner-up pissa is −([0-9.]+) nats", text).group(1))
    assert gap == pytest.approx(0.4, abs=0.02)
    assert text.endswith("the two differ beyond the chance of seeds (that of the test items aside).")
    text = answer_of(Design(valleys=valleys, noise=0.003))
    assert "lora has the highest test accuracy" in text and "points (paired over 3 seeds" in text


def test_one_seed_and_no_seed_tell_nothing_apart():
    assert "which has no interval: the two are not told apart." in answer_of(Design(fresh_seeds=1))
    assert "nothing is told apart yet" in answer_of(Design(fresh_seeds=0))
    assert answers(()) == ("No trial has ended yet. Run the study again to go on.",)


def test_each_problem_has_its_answer():
    small, _ = synthetic.study()
    large, _ = synthetic.study(Design(changes={"base": "abacus-large"}))
    found = answers(summary.summarise(small + large, ("base", "method", "batch_size")))
    assert [text.split(",")[0] for text in found] == ["On abacus-large", "On abacus-small"]


# SVG ------------------------------------------------------------------------------------------------------------------


def test_finish_turns_tips_into_titles_and_makes_ids_its_own():
    made = finish(
        f'<svg xmlns="{SVG}" xmlns:xlink="http://www.w3.org/1999/xlink"><metadata>x</metadata>'
        '<defs><style type="text/css">*{a: b}</style><path id="m1"/></defs>'
        '<g id="tip:a &lt; b &amp; c"><use xlink:href="#m1" clip-path="url(#p1)"/></g>'
        "<text style=\"font-size: 9px; font-family: 'DejaVu Sans'\">t</text>"
        '<path id="unused" d="M 1.23456 -2.001 L 0.5000 1e-07 "/></svg>',
        "heatmap",
        'what "it" shows',
    )
    root = ElementTree.fromstring(made)
    group = root.find(f"{{{SVG}}}g")
    assert group.get("id") is None and group[0].tag == f"{{{SVG}}}title" and group[0].text == "a < b & c"
    assert group[1].get("{http://www.w3.org/1999/xlink}href") == "#heatmap-m1"
    assert group[1].get("clip-path") == "url(#heatmap-p1)"
    assert root.get("aria-label") == 'what "it" shows'
    assert "metadata" not in made and "<style" not in made and "style=" not in made
    assert "system-ui" in root.get("font-family") and root.find(f"{{{SVG}}}text").get("font-size") == "9px"
    assert (
        root.find(f"{{{SVG}}}path").get("d") == "M 1.23 -2 L 0.5 1e-07"
        and root.find(f"{{{SVG}}}path").get("id") is None
    )


def test_a_figure_is_laid_out_once_and_then_drawn_once_for_each_format(tmp_path, monkeypatch):
    """Drawing takes most of a large report's time; matplotlib draws twice whatever has a layout engine."""
    drawn = []
    monkeypatch.setattr(plugins, "names", lambda kind: ["pareto"])
    monkeypatch.setattr(Figure, "draw", _counted(Figure.draw, drawn))
    results, declaration = synthetic.study()
    files.draw_figures(results, declaration, tmp_path)
    assert len(drawn) == 1 + len(("svg", "png", "pdf"))


def _counted(draw, drawn):
    def counted(figure, renderer):
        drawn.append(renderer)
        return draw(figure, renderer)

    return counted
