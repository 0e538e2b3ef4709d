"""How well a short run ranks what full runs would rank, on the recorded surfaces: a section of docs/tuner.md.

Two kinds of short run. A *probe* has a course of its own, annealed to its end: it is read from the recorded smaller
number of training rows. A *stopped* run is the beginning of a full one, compared at the same share of the same
schedule: it is read from the full runs' curves.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import spearmanr  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]
from scripts.surface_tables import Surface

from welltuned.records import Result, Role, Status

STOPPED_AT = (1 / 4, 1 / 2, 3 / 4)  # shares of a full run that the recorded curves have points at
NEAR = 0.05  # of a share: how far from it a curve's point may lie
BEST = 0.4  # share of the full runs among which a search has to tell the better ones; assumed
FEWEST = 10  # pairs that a rank correlation is given of; assumed


@dataclass(frozen=True)
class Ranking:
    """One kind of short run on one surface, over all batch sizes, learning rates and seeds that finished."""

    surface: str
    kind: str
    num_pairs: int
    correlation: float  # Spearman's, with the full runs' losses
    correlation_best: float  # among the best full runs
    regret: float  # of the full run whose short one was best, above the best full run: a share


def rankings(surface: Surface) -> Iterator[Ranking]:
    """Yield every kind of short run that a surface has."""
    full, short = _full(surface), _shorter(surface)
    for share in STOPPED_AT:
        yield from _ranking(surface, f"stopped at {share:g}", [(_at(run, share), run) for run in full.values()])
    for rows in sorted({rows for rows, _ in short}):
        pairs = [(short[rows, key].validation_nll, run) for key, run in full.items() if (rows, key) in short]
        share = rows / max(surface.recording.num_train)
        yield from _ranking(surface, f"probe of {share:g}", pairs)


def section(surfaces: Sequence[Surface]) -> str:
    """Return the table of all surfaces, and what the searches take from it."""
    lines = ["| surface | short run | pairs | correlation | among the best | regret |"]
    lines.append("| --- | --- | ---: | ---: | ---: | ---: |")
    for one in (ranking for surface in surfaces for ranking in rankings(surface)):
        cells = [one.surface, one.kind, str(one.num_pairs), f"{one.correlation:.2f}", f"{one.correlation_best:.2f}"]
        lines.append("| " + " | ".join([*cells, f"{100 * one.regret:.1f} %"]) + " |")
    return "\n".join(lines)


def _ranking(surface: Surface, kind: str, pairs: Sequence[tuple[float | None, Result]]) -> Iterator[Ranking]:
    known = [(early, run.validation_nll) for early, run in pairs if early is not None and run.validation_nll]
    if len(known) < FEWEST:
        return
    early, late = (np.log([pair[side] for pair in known]) for side in (0, 1))
    best = late <= np.quantile(late, BEST)
    yield Ranking(
        surface=surface.recording.surface,
        kind=kind,
        num_pairs=len(known),
        correlation=_spearman(early, late),
        correlation_best=_spearman(early[best], late[best]),
        regret=math.expm1(float(late[np.argmin(early)] - late.min())),
    )


def _spearman(one: np.ndarray, other: np.ndarray) -> float:
    return float(spearmanr(one, other)[0])  # pyright: ignore[reportArgumentType, reportUnknownArgumentType]


def _full(surface: Surface) -> dict[str, Result]:
    """Return the finished runs of the largest number of rows, by everything else of their configuration."""
    most = max(surface.recording.num_train)
    return {_key(run): run for run in _finished(surface) if run.config.num_train == most}


def _shorter(surface: Surface) -> dict[tuple[int, str], Result]:
    most = max(surface.recording.num_train)
    return {(run.config.num_train, _key(run)): run for run in _finished(surface) if run.config.num_train < most}


def _finished(surface: Surface) -> Iterator[Result]:
    return (run for run in surface.results if run.role is Role.SELECT and run.status is Status.FINISHED)


def _key(run: Result) -> str:
    return run.config.replace(num_train=0, num_evaluations=0).text()


def _at(run: Result, share: float) -> float | None:
    """Return the validation loss at this share of a run's samples; None where the curve has no point there."""
    total = run.curve[-1].num_samples
    found = (point for point in run.curve if abs(point.num_samples / total - share) <= NEAR * share and point.step)
    return next((point.validation_nll for point in found), None)
