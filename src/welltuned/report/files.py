"""The files beside the page: every figure as SVG, PNG, PDF and its numbers as CSV, and the trials as results.csv."""

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from welltuned import plugins
from welltuned.analysis.table import trial_rows
from welltuned.records import Declaration, Result


@dataclass(frozen=True)
class Drawn:
    """A figure as the page shows it. `svg` is None where there was nothing to draw, and `caption` then says why."""

    name: str
    title: str
    caption: str
    svg: str | None


def draw_figures(results: Sequence[Result], declaration: Declaration, folder: Path) -> tuple[Drawn, ...]:
    """Draw every figure plug-in into `folder`, in the order of their positions."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = {name: plugins.load("figures", name) for name in plugins.names("figures")}
    ordered = sorted(pictures, key=lambda name: (pictures[name].position, name))
    return tuple(_draw(name, pictures[name], results, declaration, folder) for name in ordered)


def _draw(name: str, picture: Any, results: Sequence[Result], declaration: Declaration, folder: Path) -> Drawn:
    from welltuned.report import svg

    numbers = picture.compute(results, declaration)
    for suffix in ("svg", "png", "pdf", "csv"):
        (folder / f"{name}.{suffix}").unlink(missing_ok=True)  # of an earlier report that had something to draw
    if isinstance(numbers, str):
        return Drawn(name, picture.title, numbers, None)
    caption = picture.caption(numbers)
    drawing = picture.draw(numbers)
    with picture.style():
        text = svg.render(drawing, name, f"{picture.title}. {caption}")
        drawing.set_layout_engine("none")  # it is laid out now; doing it again for each format takes most of the time
        drawing.savefig(folder / f"{name}.png", metadata={"Software": None})
        drawing.savefig(folder / f"{name}.pdf", metadata={"CreationDate": None, "Producer": None, "Creator": None})
    (folder / f"{name}.svg").write_text(text, encoding="utf-8")
    write_csv(folder / f"{name}.csv", picture.rows(numbers))
    return Drawn(name, picture.title, caption, text)


def write_results(results: Sequence[Result], path: Path) -> None:
    """Write one row for each trial."""
    write_csv(path, trial_rows(results))


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows under the first one's columns; a missing value is an empty field. No rows, an empty file."""
    with path.open("w", newline="", encoding="utf-8") as file:
        if rows:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


def write_text(path: Path, text: str) -> None:
    """Replace a file in one step, so that a reader never sees half of it."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
