"""Builds a report: analysis to figures, tables and caveats, and these to files and one page."""

from collections.abc import Sequence
from pathlib import Path

from welltuned.analysis.caveats import caveats
from welltuned.analysis.summary import summarise
from welltuned.analysis.throughput import speeds
from welltuned.records import Declaration, Result
from welltuned.report import clean, files, literature, page, provenance, tables, verdicts
from welltuned.report.answer import answers
from welltuned.report.question import question


def build(results: Sequence[Result], declaration: Declaration, folder: Path) -> Path:
    """Write report.html, results.csv, study.toml, figures/ and tables/ into `folder`; return the path of the page.

    The same results give the same bytes. An earlier report there is replaced; an unfinished study's says so.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files.write_results(results, folder / "results.csv")
    files.write_text(folder / provenance.STUDY_FILE, declaration.spec_text)
    shown, declared = clean.results(results), clean.declaration(declaration)
    rows = summarise(shown, declared.cell)
    of_study = tables.of_study(rows, speeds(shown, declared.cell))
    made = (*verdicts.of_declaration(declared), *of_study, *literature.ledger(shown))
    content = page.Content(
        declaration=declared,
        num_trials=len(shown),
        question=question(shown, declared),
        answers=answers(rows, declared.comparison),
        caveats=caveats(shown, declared),
        figures=files.draw_figures(shown, declared, folder / "figures"),
        tables=made,
        hashes=provenance.hashes(shown, declared),
    )
    files.write_tables(made, declared, folder / "tables")
    path = folder / "report.html"
    files.write_text(path, page.html(content))
    return path
