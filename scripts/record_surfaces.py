"""Record the surfaces of surfaces/manifest.toml with welltuned: `python -m scripts.record_surfaces runs`.

Run it again to go on after any interruption; run it twice at once to use two cores: each takes the first recording that
nobody works on. What is among the committed tables is not recorded again. It refuses a manifest, or a search, other
than those that `surfaces/frozen.sha256` was committed with. `--status` says what is recorded.
scripts/surface_tables.py makes the committed tables of what is complete.
"""

import argparse
import hashlib
import itertools
import math
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import welltuned
from welltuned.errors import StoreError
from welltuned.records import Result, Status
from welltuned.store import Store, recorded
from welltuned.study import Options

ROOT = Path(__file__).parents[1]
MANIFEST = ROOT / "surfaces" / "manifest.toml"
FROZEN = ROOT / "surfaces" / "frozen.sha256"
TABLES = ROOT / "surfaces" / "tables"
MEMORY_BYTES = 3 * 2**30  # of a pack: as much on every machine, so that packs do not depend on it
DIGITS = 10  # significant, of a learning rate: equal on machines whose pow() rounds differently
WAIT_SECONDS = 20  # between looks at whether another process has finished the probe


@dataclass(frozen=True)
class Recording:
    """One study: a surface at the sizes of a stage; `rank` is None for a method that has none."""

    base: str
    rank: int | None
    method: str
    num_train: tuple[int, ...]
    batch_size: tuple[int, ...]

    @property
    def surface(self) -> str:
        """Return the name of the surface, as the manifest writes it."""
        return " ".join((self.base, *(() if self.rank is None else (f"r{self.rank}",)), self.method))

    @property
    def name(self) -> str:
        """Return the name of the study, which is its folder's."""
        return f"{self.surface.replace(' ', '-')}-n{max(self.num_train)}"


def frozen(root: Path = ROOT) -> Mapping[str, Any]:
    """Return the manifest; raise where it, or the search, is not the one whose hash was committed."""
    for line in (root / "surfaces" / "frozen.sha256").read_text(encoding="utf-8").splitlines():
        expected, name = line.split()
        got = hashlib.sha256((root / name).read_bytes()).hexdigest()
        if got != expected:
            raise SystemExit(
                f"{name}: got a file with hash {got[:16]}, expected {expected[:16]}, which surfaces/frozen.sha256 was "
                "committed with before the recording began; put the old file back, or record everything anew"
            )
    return tomllib.loads((root / "surfaces" / "manifest.toml").read_text(encoding="utf-8"))


def recordings(manifest: Mapping[str, Any]) -> Iterator[Recording]:
    """Yield what is recorded, in order."""
    for stage in manifest["stages"]:
        sizes = tuple(stage["num_train"]), tuple(stage["batch_size"])
        for place, (rank, method) in enumerate(itertools.product(stage["ranks"], stage["methods"])):
            if method != "full" or place < len(stage["methods"]):
                yield Recording(stage["base"], None if method == "full" else rank, method, *sizes)


def split(manifest: Mapping[str, Any], surface: str) -> str:
    """Say whether a tuner's constants may be taken from a surface."""
    return "development" if surface in manifest["development"] else "held out"


def probe_study(manifest: Mapping[str, Any], base: str) -> dict[str, Any]:
    """Return the study that centres the learning rates of a base's methods."""
    probe, common = manifest["probe"], manifest["common"]
    return {
        "name": f"{base}-probe",
        "seed": common["seed"],
        "model": {**common["model"], "base": base},
        "task": {**common["task"], "num_train": probe["num_train"]},
        "train": {**common["train"], "num_evaluations": 1, "rank": probe["rank"], "batch_size": probe["batch_size"]},
        "axes": {"method": probe["methods"], "learning_rate": probe["learning_rate"]},
        "search": {"search": "grid", "fresh_seeds": 0},
    }


def surface_study(manifest: Mapping[str, Any], recording: Recording, centre: float) -> dict[str, Any]:
    """Return the study of a recording whose learning rates lie around a centre."""
    common = manifest["common"]
    rank = {} if recording.rank is None else {"rank": recording.rank}
    return {
        "name": recording.name,
        "seed": common["seed"],
        "model": {**common["model"], "base": recording.base},
        "task": common["task"],
        "train": {**common["train"], **rank},
        "axes": {
            "method": [recording.method],
            "num_train": list(recording.num_train),
            "batch_size": list(recording.batch_size),
            "learning_rate": rates(manifest["rates"], centre),
        },
        "search": common["search"],
    }


def rates(grid: Mapping[str, Any], centre: float) -> list[float]:
    """Return a method's learning rates: the grid's member nearest to the centre, and as many below as above it."""
    middle = round(math.log(centre / grid["anchor"], grid["ratio"]))
    half = grid["number"] // 2
    exact = [grid["anchor"] * grid["ratio"] ** (middle + k) for k in range(-half, half + 1)]
    return [float(f"{rate:.{DIGITS}g}") for rate in exact]


def centre_of(results: Sequence[Result], method: str) -> float:
    """Return the best learning rate of a probe: the parabola's vertex where the best has two finished neighbours."""
    losses = {
        result.config.learning_rate: result.validation_nll if result.status is Status.FINISHED else None
        for result in results
        if result.config.method == method
    }
    ordered = sorted(losses)
    best = min((rate for rate in ordered if losses[rate] is not None), key=lambda rate: (losses[rate], rate))
    place = ordered.index(best)
    around = ordered[max(0, place - 1) : place + 2]
    values = [losses[rate] for rate in around]
    if len(around) < 3 or any(value is None for value in values):
        return best
    low, middle, high = values
    offset = 0.5 * (low - high) / (low - 2 * middle + high) if low - 2 * middle + high > 0 else 0.0
    return best * (around[2] / around[1]) ** offset


def record(manifest: Mapping[str, Any], runs: Path, threads: int, only: Sequence[str] = ()) -> None:
    """Record what is missing, in the manifest's order, and leave out what another process works on."""
    chosen = [each for each in recordings(manifest) if not only or each.name in only]
    if unknown := set(only) - {each.name for each in chosen}:
        raise SystemExit(f"--only: got {', '.join(sorted(unknown))}, expected names as surfaces/README.md has them")
    busy = True
    while busy:
        busy = False
        for recording in chosen:
            centre = _centre(manifest, recording, runs, threads)
            busy |= not _run(surface_study(manifest, recording, centre), runs, threads)
        if busy:  # others work on the last ones; if they are killed, this one goes on with them
            time.sleep(WAIT_SECONDS)


def _centre(manifest: Mapping[str, Any], recording: Recording, runs: Path, threads: int) -> float:
    study = probe_study(manifest, recording.base)
    while not _run(study, runs, threads):
        time.sleep(WAIT_SECONDS)
    table = committed(study["name"])
    results = recorded.read(table)[1] if table.exists() else welltuned.open(runs / study["name"]).results()
    return centre_of(results, recording.method)


def _run(study: Mapping[str, Any], runs: Path, threads: int) -> bool:
    """Run a study to its end, or go on with it; say False where another process is at work on it."""
    folder = runs / study["name"]
    if committed(study["name"]).exists() or is_finished(folder):
        return True
    spec = welltuned.Spec.model_validate(study)
    print(f"{time.strftime('%H:%M:%S')} {study['name']}", flush=True)
    try:
        welltuned.run(spec, folder, options=Options(threads=threads, memory_bytes=MEMORY_BYTES))
    except StoreError as error:
        print(f"{time.strftime('%H:%M:%S')} {study['name']}: {error}", flush=True)
        return False
    return True


def committed(name: str) -> Path:
    """Return where the table of a study is once it is complete (scripts/surface_tables.py)."""
    return TABLES / f"{name}.jsonl.gz"


def is_finished(folder: Path) -> bool:
    """Say whether a study has come to its end."""
    if not (folder / "study.db").exists():
        return False
    with Store.open(folder) as store:
        return store.fact("finished") is not None


def status(manifest: Mapping[str, Any], runs: Path) -> None:
    """Print what is recorded."""
    for recording in recordings(manifest):
        folder = runs / recording.name
        if committed(recording.name).exists():
            print(f"{recording.name:40} {split(manifest, recording.surface):12} committed")
        elif (folder / "study.db").exists():
            counts = welltuned.open(folder).counts()
            state = "complete" if is_finished(folder) else f"{counts.num_trials - counts.num_open} trials ended"
            print(f"{recording.name:40} {split(manifest, recording.surface):12} {state}")


def main() -> None:
    """Record, or say what is recorded."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, help="folder of the study folders")
    parser.add_argument("--threads", type=int, default=1, help="of a process; packs of a small base use one core best")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="these, before those in front of them")
    parser.add_argument("--status", action="store_true", help="only say what is recorded")
    arguments = parser.parse_args()
    manifest = frozen()
    if arguments.status:
        status(manifest, arguments.runs)
    else:
        record(manifest, arguments.runs, arguments.threads, arguments.only)


if __name__ == "__main__":
    main()
