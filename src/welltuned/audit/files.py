"""The audit's files: audit.html and audit.md for people, audit.json for programs, and its tables as CSV."""

import csv
import dataclasses
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from welltuned.analysis import claims
from welltuned.audit import markdown, webpage
from welltuned.audit.assemble import Audit
from welltuned.audit.conclusions import Conclusion
from welltuned.audit.records import Entry
from welltuned.audit.tuned import Tuned
from welltuned.errors import InputError, problem


def write(audit: Audit, folder: Path) -> Path:
    """Write audit.html, audit.md, audit.json, and CSV files; return the path of the HTML page."""
    if folder.exists() and not folder.is_dir():
        raise InputError(problem("--to", str(folder), "a folder", "name another one"))
    found = as_json(audit)
    text = json.dumps(found, indent=2, allow_nan=False) + "\n"
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "audit.json", text)
    _write_csv(folder / "tuned.csv", found["tuned"])
    _write_csv(folder / "conclusions.csv", found["conclusions"])
    _write_csv(folder / "claims.csv", found["claims"])
    runs = [*audit.book.choosing.entries, *(audit.book.judging.entries if audit.book.fresh else ())]
    _write_csv(folder / "runs.csv", [_run(entry) for entry in runs])
    _write(folder / "audit.md", markdown.page(audit))
    path = folder / "audit.html"
    _write(path, webpage.page(audit))
    return path


def as_json(audit: Audit) -> dict[str, Any]:
    """Return the whole audit as plain values; what is not known is null."""
    side = audit.book.judging
    return {
        "source": audit.book.source,
        "metric": side.metric,
        "higher_is_better": side.higher_is_better,
        "chosen_by": audit.book.choosing.metric,
        "judged_by_other_numbers": audit.book.fresh,
        "baseline": audit.baseline,
        "verdict": list(audit.verdict),
        "findings": [dataclasses.asdict(one) for one in audit.findings],
        "tuned": [_tuned(row) for row in audit.tuned],
        "conclusions": [_conclusion(one) for one in audit.conclusions],
        "flips": [
            {
                "method": one.one,
                "baseline": one.other,
                "shared_configurations": len(one.configurations),
                "method_ahead": len(one.side(one.one)),
                "baseline_ahead": len(one.side(one.other)),
                "flip_rate": one.flip_rate,
            }
            for one in audit.flips
        ],
        "claims": [dict(claims.record(found)) for found in audit.claims],
        "read_from": dict(audit.book.used),
        "unscored": [dataclasses.asdict(one) for one in audit.book.unscored],
    }


def _tuned(row: Tuned) -> dict[str, Any]:
    place = row.chosen.place
    found: dict[str, Any] = {"problem": _pairs(row.problem), "method": row.method, "passes": row.passes}
    for knob in row.knobs:
        found |= {f"num_{knob.name}s": knob.count, f"{knob.name}_edge": knob.edge}
    return found | {
        "num_configurations": row.num_configurations,
        "num_runs": row.num_runs,
        "num_seeds": row.num_seeds,
        "num_diverged": row.num_diverged,
        "best_learning_rate": place.learning_rate,
        "best_batch_size": place.batch_size,
        "best_rank": place.rank,
        "value": row.headline.value if row.headline else None,
        "sd": row.headline.sd if row.headline else None,
    }


def _conclusion(one: Conclusion) -> dict[str, Any]:
    return {
        "problem": _pairs(one.problem),
        "winner": one.winner,
        "loser": one.loser,
        "winner_value": one.winner_value,
        "loser_value": one.loser_value,
        "difference": one.difference,
        "standing": one.standing.value,
        "reasons": "; ".join(one.reasons),
        "scope": "; ".join(one.scope),
        "se_low": one.noise.low,
        "se_high": one.noise.high,
        "degrees_of_freedom_low": None if math.isinf(one.noise.low_degrees) else one.noise.low_degrees,
        "degrees_of_freedom": None if math.isinf(one.noise.high_degrees) else one.noise.high_degrees,
        "noise_from": one.noise.source,
        "p_value": one.p_value,
        "p_holm": one.adjusted_p,
        "best_of": one.inflation.num_tried,
        "inflation_bound": one.inflation.bound,
    }


def _run(entry: Entry) -> dict[str, Any]:
    fields = dataclasses.asdict(entry.run) | {
        "problem": _pairs(entry.run.problem),
        "setting": _pairs(entry.run.setting),
    }
    return {"place": entry.place, **fields}


def _pairs(pairs: Sequence[tuple[str, str]]) -> str:
    return ", ".join(f"{name} {value}" for name, value in pairs)


def _write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        if rows:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


def _write(path: Path, text: str) -> None:
    """Replace a file in one step, so that a reader never sees half of it."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
