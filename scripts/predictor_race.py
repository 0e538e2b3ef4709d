"""Which quantity at the start, or after a few steps, predicts a learning rate? `python -m scripts.predictor_race`.

    python -m scripts.predictor_race runs/a/curvature runs/a               # rows of `welltuned curvature`, and a study
    python -m scripts.predictor_race runs/a/curvature table.jsonl.gz another.jsonl.gz --to race.csv

What follows the rows are studies' folders or recorded tables (store/recorded.py; surfaces/tables/ has some), taken
together. All must be of the base and data that the rows were measured on. The rows need the joint block of each method
and rank of the studies; steps beyond 0 bring more predictors. analysis/predictors.py says how the race is judged.
"""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from welltuned.analysis import predictors
from welltuned.analysis.cells import Cell, group
from welltuned.analysis.curvature import BlockRow
from welltuned.analysis.wording import DASH
from welltuned.cli._text import table
from welltuned.report.files import write_csv
from welltuned.store import recorded
from welltuned.study import Study

ROWS = "rows.jsonl"  # of welltuned.curvature.files, which loads torch


def read_rows(path: Path) -> tuple[BlockRow, ...]:
    """Read what `welltuned curvature` has left; its first line says what was measured."""
    lines = (path / ROWS if path.is_dir() else path).read_text(encoding="utf-8").splitlines()[1:]
    return tuple(BlockRow.parse(line) for line in lines)


def read_cells(path: Path) -> tuple[Cell, ...]:
    """Read the cells of a study's folder or of a recorded table."""
    if path.is_dir():
        study = Study(path)
        return group(study.results(), study.declaration().cell)
    declaration, results = recorded.read(path)
    return group(results, declaration.cell)


def report(places: Sequence[predictors.Place], rows: Sequence[BlockRow]) -> tuple[str, list[dict]]:
    """Return what the race found, as text and as rows of a table."""
    field = predictors.predictors(sorted({row.step for row in rows}))
    parts, lines = [], []
    for target in predictors.TARGETS:
        scores, out = predictors.race(places, rows, target, field)
        num_known = sum(place.target(target) is not None for place in places)
        parts.append(f"{target}: known in {num_known} of {len(places)} cells")
        if scores:
            parts.append(table(HEADS, [_line(score) for score in scores]))
            parts += _verdict(scores)
        parts += [f"{name}: {reason}" for name, reason in out.items()]
        found = predictors.exponent(places, rows, target)
        if found is not None:
            span = f"{found.low:.2f} to {found.high:.2f} with one method left out"
            parts.append(f"exponent of lambda over methods: {found.slope:.2f} ({span}), {found.num_cells} cells")
        parts.append("")
        lines += [dataclasses.asdict(score) for score in scores]
    return "\n".join(parts), lines


HEADS = ("predictor", "cells", "error, octaves", "method left out", "worst", "without a fit", "rank correlation")


def _line(score: predictors.Score) -> tuple[str, ...]:
    numbers = (score.error, score.method_error, score.worst, score.unfitted, score.correlation)
    return (score.predictor, str(score.num_cells), *(DASH if value is None else f"{value:.2f}" for value in numbers))


def _verdict(scores: Sequence[predictors.Score]) -> list[str]:
    """Say plainly how the published predictor, 1 / lambda, has done."""
    places = [score.predictor for score in scores]
    if "1 / lambda" not in places:
        return []
    raw, null = (
        next(score for score in scores if score.predictor == name) for name in ("1 / lambda", "one rate for all")
    )
    beaten = "worse than" if raw.error > null.error else "no worse than"
    rank = places.index("1 / lambda") + 1
    return [f"1 / lambda comes {rank} of {len(scores)}, and is {beaten} one learning rate for all methods."]


def main() -> None:
    """Read the command line, print the race, and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("curvature", type=Path, help="the folder that `welltuned curvature` has written")
    parser.add_argument("studies", type=Path, nargs="+", help="studies' folders, or recorded tables")
    parser.add_argument("--to", type=Path, help="a CSV file for the scores")
    args = parser.parse_args()
    text, lines = report(
        predictors.places([cell for study in args.studies for cell in read_cells(study)]), read_rows(args.curvature)
    )
    print(text)
    if args.to:
        write_csv(args.to, lines)


if __name__ == "__main__":
    main()
