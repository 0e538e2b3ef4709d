"""The files beside the page: figures as SVG, PDF, PNG, CSV and LaTeX; tables as CSV and LaTeX; the trials."""

import csv
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from welltuned import plugins
from welltuned.analysis.table import trial_rows
from welltuned.records import Declaration, Result
from welltuned.report import latex
from welltuned.report.table import Table, of_numbers

FIGURE_FORMATS = ("svg", "pdf", "png", "csv", "tex")
TABLE_FORMATS = ("csv", "tex")
WIDE_INCHES = 4.0  # wider than any column of a two-column paper, narrower than any two
NO_GLYPH = " PNG and PDF lack a glyph for some letters of the names; the SVG file has them."


@dataclass(frozen=True)
class Drawn:
    """A figure as the page shows it. `svg` is None where there was nothing to draw, and `caption` then says why."""

    name: str
    title: str
    caption: str
    svg: str | None
    wide: bool  # over both columns of a paper
    numbers: Table | None


def draw_figures(results: Sequence[Result], declaration: Declaration, folder: Path) -> tuple[Drawn, ...]:
    """Draw every figure plug-in into `folder`, in the order of their positions."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = {name: plugins.load("figures", name) for name in plugins.names("figures")}
    ordered = sorted(pictures, key=lambda name: (pictures[name].position, name))
    return tuple(_draw(name, pictures[name], results, declaration, folder) for name in ordered)


def _draw(name: str, picture: Any, results: Sequence[Result], declaration: Declaration, folder: Path) -> Drawn:
    numbers = picture.compute(results, declaration)
    for suffix in FIGURE_FORMATS:
        (folder / f"{name}.{suffix}").unlink(missing_ok=True)  # of an earlier report that had something to draw
    if isinstance(numbers, str):
        return Drawn(name, picture.title, numbers, None, False, None)
    rows, caption = picture.rows(numbers), picture.caption(numbers)
    text, wide, lacking = write_drawing(name, picture, numbers, folder)
    caption += NO_GLYPH if lacking else ""
    write_csv(folder / f"{name}.csv", rows)
    snippet = latex.figure(f"{name}.pdf", picture.title, caption, wide, _source(declaration))
    (folder / f"{name}.tex").write_text(snippet, encoding="utf-8")
    return Drawn(name, picture.title, caption, text, wide, of_numbers(name, f"{picture.title}: the numbers", rows))


def write_drawing(name: str, picture: Any, numbers: Any, folder: Path) -> tuple[str, bool, bool]:
    """Draw and write one figure; return (its SVG, whether it takes both columns, whether the font lacks a letter)."""
    from welltuned.report import svg

    with picture.style(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        drawing = picture.draw(numbers)
        text = svg.render(drawing, name, f"{picture.title}. {picture.alt(numbers)}")
        for tip in drawing.findobj(lambda artist: artist.get_alpha() == 0):  # discs that only carry a tooltip
            tip.set_visible(False)
        drawing.set_layout_engine(None)  # it is laid out now; with any engine each format would be drawn twice
        drawing.savefig(folder / f"{name}.png", metadata={"Software": None})
        drawing.savefig(folder / f"{name}.pdf", metadata={"CreationDate": None, "Producer": None, "Creator": None})
    lacking = False
    for warning in caught:
        if "missing from font" in str(warning.message):
            lacking = True
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    (folder / f"{name}.svg").write_text(text, encoding="utf-8")
    return text, drawing.get_figwidth() > WIDE_INCHES, lacking


def write_tables(tables: Sequence[Table], declaration: Declaration, folder: Path) -> None:
    """Write every table, replacing those of an earlier report."""
    folder.mkdir(parents=True, exist_ok=True)
    for suffix in TABLE_FORMATS:
        for old in folder.glob(f"*.{suffix}"):
            old.unlink()
    for table in tables:
        write_csv(folder / f"{table.name}.csv", table.records)
        (folder / f"{table.name}.tex").write_text(latex.table(table, _source(declaration)), encoding="utf-8")


def _source(declaration: Declaration) -> str:
    return f"From the welltuned study {declaration.name}, declaration {declaration.spec_hash}"


def write_results(results: Sequence[Result], path: Path) -> None:
    """Write one row for each trial."""
    write_csv(path, trial_rows(results))


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows under the first one's columns; a missing value is an empty field. No rows, an empty file."""
    with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:  # a lone surrogate
        if rows:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


def write_text(path: Path, text: str) -> None:
    """Replace a file in one step, so that a reader never sees half of it."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
    os.replace(temporary, path)
