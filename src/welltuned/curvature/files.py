"""What `welltuned curvature` leaves: rows as JSON lines while it measures, then a table and figures.

The first line says what was measured on what (base, data, rows, tolerance, versions), and rows of another measurement
are never mixed with it: a file that says otherwise is refused.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from welltuned.analysis.curvature import LINES, BlockRow
from welltuned.curvature.survey import Request
from welltuned.errors import StoreError, problem
from welltuned.figures import _curvature_map, _curvature_ratios
from welltuned.report.files import write_csv, write_drawing

VERSION = 1  # raised whenever a number could change
TABLE = "curvature.csv"
PICTURES = {"eigenvalues": _curvature_map.PICTURE, "ratios": _curvature_ratios.PICTURE}


def about(request: Request) -> dict[str, Any]:
    """Return what decides the numbers beside a row's own key."""
    first = request.configs[0]
    return {
        "version": VERSION,
        "study_seed": first.study_seed,
        "base": first.base_hash,
        "data": first.data_hash,
        "problem": [str(part) for part in first.data_key()],
        "num_rows": request.num_rows,
        "effort": dataclasses.asdict(request.effort),
    }


class Rows:
    """The rows of a folder, those measured before and those added."""

    def __init__(self, folder: Path, about: dict[str, Any]) -> None:
        self.folder, self.path = folder, folder / LINES
        self.rows: list[BlockRow] = []
        head = json.dumps(about, sort_keys=True, allow_nan=False)
        folder.mkdir(parents=True, exist_ok=True)
        if not self.path.exists():
            self.path.write_text(head + "\n", encoding="utf-8")
            return
        first, *lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
        if first.strip() != head:
            expected = "the same base, data and samples as before"
            raise StoreError(problem(str(self.path), "another measurement", expected, "name another --folder"))
        whole = [line for line in lines if line.endswith("\n")]  # a kill leaves half a line
        self.rows = [BlockRow.parse(line) for line in whole]
        self.path.write_text(first + "".join(whole), encoding="utf-8")

    def keys(self) -> frozenset[tuple[object, ...]]:
        """Return the keys of the rows that are there."""
        return frozenset(row.key for row in self.rows)

    def add(self, rows: Sequence[BlockRow]) -> None:
        """Append rows, those that are there already left out."""
        fresh = [row for row in rows if row.key not in self.keys()]
        with self.path.open("a", encoding="utf-8") as file:
            file.writelines(row.text() + "\n" for row in fresh)
        self.rows += fresh

    def finish(self) -> Path:
        """Write the table and the figures; return the table's path."""
        columns = ("module", "layer", "noise_scale", "sign_step", "adam_ceiling")
        table = self.folder / TABLE
        write_csv(
            table,
            [dataclasses.asdict(row) | {name: getattr(row, name) for name in columns} for row in self.rows],
        )
        for name, picture in PICTURES.items():
            numbers = picture.compute(self.rows)
            if not isinstance(numbers, str):
                write_drawing(name, picture, numbers, self.folder)
                write_csv(self.folder / f"{name}.csv", picture.rows(numbers))
        return table
