"""Builds a report: analysis to figures, tables and caveats, and these to files and one page."""

from collections.abc import Sequence
from pathlib import Path

from welltuned.analysis.caveats import caveats
from welltuned.analysis.summary import summarise
from welltuned.analysis.throughput import speeds
from welltuned.records import Declaration, Result
from welltuned.report import files, page
from welltuned.report.answer import answers


def build(results: Sequence[Result], declaration: Declaration, folder: Path) -> Path:
    """Write report.html, results.csv and figures/ into `folder`, and return the path of the page.

    The same results give the same bytes. An earlier report there is replaced; an unfinished study's says so.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = summarise(results, declaration.cell)
    content = page.Content(
        declaration=declaration,
        num_trials=len(results),
        answers=answers(rows, declaration.comparison),
        caveats=caveats(results, declaration),
        rows=rows,
        speeds=speeds(results, declaration.cell),
        figures=files.draw_figures(results, declaration, folder / "figures"),
    )
    files.write_results(results, folder / "results.csv")
    path = folder / "report.html"
    files.write_text(path, page.html(content))
    return path
