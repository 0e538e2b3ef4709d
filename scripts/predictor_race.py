"""Which quantity at the start, or after a few steps, predicts a learning rate? `python -m scripts.predictor_race`.

    python -m scripts.predictor_race                                       # the recorded surfaces of abacus-small
    python -m scripts.predictor_race --development                         # those that constants may be taken from
    python -m scripts.predictor_race runs/a/curvature runs/a               # rows of `welltuned curvature`, and a study
    python -m scripts.predictor_race runs/a/curvature table.jsonl.gz another.jsonl.gz --to race.csv

What follows the rows are studies' folders or recorded tables (store/recorded.py), taken together: of each the cells
with the most training rows. Those of another base or other data than the rows' are left out, and it is said. The rows
need the joint block of each method and rank of the studies; steps beyond 0 bring more predictors.
analysis/predictors.py says how the race is judged.
"""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from scripts import record_surfaces
from scripts.record_surfaces import ROOT

from welltuned.analysis import curvature, predictors
from welltuned.analysis.cells import Cell, group
from welltuned.analysis.curvature import BlockRow
from welltuned.analysis.wording import DASH
from welltuned.cli._text import table
from welltuned.report.files import write_csv
from welltuned.store import recorded
from welltuned.study import Study

CURVATURE = ROOT / "surfaces" / "curvature"


def read_cells(path: Path) -> tuple[Cell, ...]:
    """Read a study's folder or a recorded table; return its cells with the most training rows."""
    if path.is_dir():
        study = Study(path)
        cells = group(study.results(), study.declaration().cell)
    else:
        declaration, results = recorded.read(path)
        cells = group(results, declaration.cell)
    most = max((cell.config.num_train for cell in cells), default=0)
    return tuple(cell for cell in cells if cell.config.num_train == most)


def read_places(paths: Sequence[Path], problem: Sequence[str]) -> tuple[tuple[predictors.Place, ...], int]:
    """Return the places of the studies that are of this base and data, and how many cells are not."""
    cells = [cell for path in paths for cell in read_cells(path)]
    mine = [cell for cell in cells if [str(part) for part in cell.config.data_key()] == list(problem)]
    return predictors.places(mine), len(cells) - len(mine)


def report(places: Sequence[predictors.Place], rows: Sequence[BlockRow]) -> tuple[str, list[dict]]:
    """Return what the race found, as text and as rows of a table."""
    field = predictors.predictors(sorted({row.step for row in rows}))
    parts, lines = [], []
    for target in predictors.TARGETS:
        scores, out = predictors.race(places, rows, target, field)
        known = [place for place in places if place.target(target) is not None]
        parts.append(f"{target}: known in {len(known)} of {len(places)} cells")
        lines += [dataclasses.asdict(score) for score in scores]
        if scores:
            parts += [table(HEADS, [_line(score) for score in scores]), *_verdict(scores)]
        parts += [f"{name}: {reason}" for name, reason in out.items()]
        everywhere = [one for one in field if _is_known(one, known, rows)]
        if scores and scores[0].num_cells < len(known) and len(everywhere) > 1:
            missing = ", ".join(one.name for one in field if one not in everywhere and one.name not in out)
            parts.append(f"in all {len(known)} cells, without what has no number in some ({missing}):")
            wider, _ = predictors.race(places, rows, target, everywhere)
            parts.append(table(HEADS, [_line(score) for score in wider]))
            lines += [dataclasses.asdict(score) for score in wider]
        found = predictors.exponent(places, rows, target)
        if found is not None:
            span = f"{found.low:.2f} to {found.high:.2f} with one method left out"
            parts.append(f"exponent of lambda over methods: {found.slope:.2f} ({span}), {found.num_cells} cells")
        parts.append("")
    return "\n".join(parts), lines


def _is_known(one: predictors.Predictor, places: Sequence[predictors.Place], rows: Sequence[BlockRow]) -> bool:
    return all(one.value(place, predictors.joint_rows(place, rows)) is not None for place in places)


HEADS = ("predictor", "cells", "error, octaves", "method left out", "rms", "worst", "without a fit", "rank correlation")


def _line(score: predictors.Score) -> tuple[str, ...]:
    numbers = (score.error, score.method_error, score.method_rms, score.worst, score.unfitted, score.correlation)
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


def surfaces(only_development: bool = False) -> list[Path]:
    """Return the tables of the recorded surfaces, or of those that a search's constants may be taken from."""
    manifest = record_surfaces.frozen()
    names = [
        one.name
        for one in record_surfaces.recordings(manifest)
        if not only_development or record_surfaces.split(manifest, one.surface) == "development"
    ]
    return [path for name in names if (path := record_surfaces.committed(name)).exists()]


def main() -> None:
    """Read the command line, print the race, and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("curvature", type=Path, nargs="?", default=CURVATURE, help="what `welltuned curvature` wrote")
    parser.add_argument("studies", type=Path, nargs="*", help="studies' folders, or recorded tables")
    parser.add_argument("--development", action="store_true", help="without the surfaces that are held out")
    parser.add_argument("--start", action="store_true", help="without what is measured after some steps")
    parser.add_argument("--to", type=Path, help="a CSV file for the scores")
    args = parser.parse_args()
    problem, rows = curvature.read(args.curvature)
    places, num_others = read_places(args.studies or surfaces(args.development), problem)
    if num_others:
        print(f"{num_others} cells are left out: the rows are of another base or other data")
    text, lines = report(places, [row for row in rows if row.step == 0 or not args.start])
    print(text)
    if args.to:
        write_csv(args.to, lines)


if __name__ == "__main__":
    main()
