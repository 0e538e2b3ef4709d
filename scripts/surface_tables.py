"""The recorded surfaces as committed tables: `python -m scripts.surface_tables RUNS` condenses what is complete.

RUNS is the folder that scripts/record_surfaces.py records in. Each recording becomes surfaces/tables/NAME.jsonl.gz (a
study's declaration, then a line a trial: `welltuned.store.recorded`), and surfaces/README.md the card of all of them.
`load` reads them back. The tables are part of the repository and not of the installed package.
"""

import argparse
import dataclasses
import json
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts import record_surfaces
from scripts.record_surfaces import Recording

import welltuned
from welltuned.executors.replay import Recorded
from welltuned.records import Declaration, Result, Role, Status
from welltuned.store import recorded

FOLDER = record_surfaces.ROOT / "surfaces"
TABLES, CARD = record_surfaces.TABLES, FOLDER / "README.md"
SPLITS = ("development", "held out")
LINE = 120  # letters
MEGABYTE = 1e6


@dataclass(frozen=True)
class Surface:
    """One committed recording; `split` says whether a tuner's constants may be taken from it."""

    recording: Recording
    split: str
    declaration: Declaration
    results: tuple[Result, ...]

    @property
    def candidates(self) -> tuple[Result, ...]:
        """Return the first seed's results at the largest number of rows: what a tuner chooses from."""
        most = max(self.recording.num_train)
        return tuple(
            result
            for result in self.results
            if result.role is Role.SELECT and result.config.num_train == most and result.config.init_seed == 0
        )


def load(*splits: str, folder: Path = TABLES) -> list[Surface]:
    """Return the committed recordings of these splits ("development", "held out"; none given: all), in order."""
    if wrong := [name for name in splits if name not in SPLITS]:
        raise SystemExit(f"split: got {wrong[0]!r}, expected one of {', '.join(map(repr, SPLITS))}")
    manifest = record_surfaces.frozen()
    found = []
    for recording in record_surfaces.recordings(manifest):
        split = record_surfaces.split(manifest, recording.surface)
        path = folder / f"{recording.name}.jsonl.gz"
        if path.exists() and split in (splits or SPLITS):
            found.append(Surface(recording, split, *recorded.read(path)))
    return found


def condense(runs: Path) -> None:
    """Write the tables of all complete recordings, and of the probes that centred them."""
    manifest = record_surfaces.frozen()
    TABLES.mkdir(exist_ok=True)
    names = [recording.name for recording in record_surfaces.recordings(manifest)]
    names += sorted({f"{stage['base']}-probe" for stage in manifest["stages"]})
    for name in names:
        if record_surfaces.is_finished(runs / name):
            study = welltuned.open(runs / name)
            kept = [
                dataclasses.replace(result, adapter=None) for result in study.results()
            ]  # blobs stay where they are
            declaration = dataclasses.replace(study.declaration(), ledger_problem="")  # it names a path of the machine
            recorded.write(record_surfaces.committed(name), declaration, kept)


# The card ----------------------------------------------------------------------------------------------------------


def card(manifest: Mapping[str, Any], surfaces: Sequence[Surface]) -> str:
    """Return surfaces/README.md."""
    planned = list(record_surfaces.recordings(manifest))
    num_bytes = sum(path.stat().st_size for path in TABLES.glob("*.gz"))
    parts = [
        "# Recorded surfaces",
        _filled(
            "Validation loss over learning rate, batch size and number of training rows, recorded with welltuned "
            "itself on the bundled models, so that searches can be judged by replay (docs/tuner.md) instead of by "
            "training. This page is written by `python -m scripts.surface_tables RUNS`."
        ),
        _filled(
            "`manifest.toml` says what is recorded, in which order, and which surfaces (base, rank, method) are for "
            "development: every constant of a search comes from these, and the others are held out. `frozen.sha256` "
            "was committed before the first recording, and the recorder refuses another manifest. `tables/` has one "
            "file a recording; `scripts.surface_tables.load()` reads them. `curvature/` has what `welltuned curvature` "
            "measures of the cells of abacus-small (docs/curvature.md, the predictor race)."
        ),
        f"{len(surfaces)} of {len(planned)} recordings are complete, {num_bytes / MEGABYTE:.2f} MB.",
        "\n".join(_table(surfaces)),
        _filled(
            "*spread* is the standard deviation of the loss over seeds, relative and pooled over all points with "
            "several. *seconds* are the trials' shares of their packs' time on a machine with other work on it, which "
            "stood still now and then: they say little about speed."
        ),
        _how(manifest),
        _cut(manifest, planned, surfaces),
        "\n".join(["Environments:", "", *_environments(surfaces)]),
    ]
    return "\n\n".join(parts) + "\n"


def _table(surfaces: Sequence[Surface]) -> Iterator[str]:
    yield "| surface | split | rows | batch sizes | learning rates | trials | diverged | spread | seconds |"
    yield "| --- | --- | --- | --- | --- | ---: | ---: | ---: | ---: |"
    for surface in surfaces:
        rates = sorted({result.config.learning_rate for result in surface.results})
        status = Counter(result.status for result in surface.results)
        spread = Recorded(surface.results).sd_log
        cells = [
            surface.recording.surface,
            surface.split,
            ", ".join(f"{size:,}" for size in surface.recording.num_train),
            ", ".join(map(str, surface.recording.batch_size)),
            f"{rates[0]:.3g} to {rates[-1]:.3g}",
            str(len(surface.results)),
            str(status[Status.DIVERGED]),
            f"{100 * spread:.1f} %",
            f"{sum(result.seconds for result in surface.results):,.0f}",
        ]
        yield "| " + " | ".join(cells) + " |"


def _how(manifest: Mapping[str, Any]) -> str:
    common, probe, rates = manifest["common"], manifest["probe"], manifest["rates"]
    task, train = common["task"], common["train"]
    return _filled(
        f"How: {common['model']['dtype']}, AdamW, cosine schedule, no warm-up, alpha = r, all linear modules, one "
        f"epoch. {rates['number']} learning rates with a factor of {rates['ratio']:g} between them, the same for all "
        "batch sizes, numbers of rows and ranks of a method, centred by a probe of every method on the same "
        f"{len(probe['learning_rate'])} learning rates ({probe['num_train']} rows, batch {probe['batch_size']}, rank "
        f"{probe['rank']}), which is in `tables/`, too. Validation takes time: {train['num_evaluations']} points a "
        f"trial on {task['num_validation']} rows are {train['num_evaluations'] * task['num_validation']} rows "
        "read forward only, about a quarter of the time of training on 1,024 rows. Seed 0 everywhere; seeds 1 and 2 "
        "where the learning rate is within 4 times the best of its batch size. The best setting of the largest number "
        f"of rows is rerun on two fresh seeds and graded on {task['num_test']} test items, item by item. Every cell of "
        "the largest number of rows has at least 32 optimizer steps, the smaller ones at least 8: they are what a "
        "shortened trial is read from."
    )


def _cut(manifest: Mapping[str, Any], planned: Sequence[Recording], surfaces: Sequence[Surface]) -> str:
    done = {surface.recording.name for surface in surfaces}
    missing = [recording.name for recording in planned if recording.name not in done]
    text = (
        "Cut from what was first intended: 8 validation points and not 20; 16,384 rows for two methods at rank 8 only; "
        "the large base at one number of rows, hence without what a probe could be read from. "
    )
    hours = sum(result.seconds for surface in surfaces for result in surface.results) / 3600
    text += f"What there is took {hours:.1f} hours of one core. "
    text += f"Not recorded: {', '.join(missing)}." if missing else "Everything of the manifest is recorded."
    return _filled(text)


def _environments(surfaces: Sequence[Surface]) -> Iterator[str]:
    texts = dict.fromkeys(text for surface in surfaces for text in surface.declaration.environments)
    for text in texts:
        yield f"- {', '.join(f'{key} {value}' for key, value in json.loads(text).items())}"


def _filled(text: str) -> str:
    return textwrap.fill(text, LINE, break_on_hyphens=False, break_long_words=False)


def main() -> None:
    """Condense what is complete and write the card."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, help="folder of the recordings' study folders")
    condense(parser.parse_args().runs)
    surfaces = load()
    CARD.write_text(card(record_surfaces.frozen(), surfaces), encoding="utf-8")
    print(f"{len(surfaces)} recordings in {TABLES}")


if __name__ == "__main__":
    main()
