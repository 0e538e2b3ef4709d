"""How fast each cell trained: real tokens per second of its share of the packs, and the seconds of a trial."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from welltuned.analysis.cells import group
from welltuned.analysis.wording import Key, label
from welltuned.records import Result


@dataclass(frozen=True)
class SpeedRow:
    """A cell's cost. Rates are None where no time was recorded."""

    key: Key
    label: str
    method: str
    batch_size: int
    num_trials: int
    num_tokens: int
    seconds: float
    tokens_per_second: float | None
    seconds_per_trial: float | None
    mean_pack: float  # trials that trained together, on average


def speeds(results: Sequence[Result], cell: Sequence[str]) -> tuple[SpeedRow, ...]:
    """Return a row for each cell, over all its trials, diverged ones included: they cost time too."""
    rows: list[SpeedRow] = []
    for member in group(results, cell):
        trials = member.select + member.confirm
        seconds = math.fsum(result.seconds for result in trials)
        num_tokens = sum(result.num_tokens for result in trials)
        rows.append(
            SpeedRow(
                key=member.key,
                label=label(member.key) if member.key else member.config.method,
                method=member.config.method,
                batch_size=member.config.batch_size,
                num_trials=len(trials),
                num_tokens=num_tokens,
                seconds=seconds,
                tokens_per_second=num_tokens / seconds if seconds > 0 else None,
                seconds_per_trial=seconds / len(trials) if seconds > 0 else None,
                mean_pack=sum(result.num_pack for result in trials) / len(trials),
            )
        )
    return tuple(rows)
