"""How two cells differ on the same fresh seeds: the paired difference, with its interval over seeds."""

from welltuned.analysis.interval import Interval, over_seeds
from welltuned.analysis.summary import FreshRun, SummaryRow


def paired(one: SummaryRow, other: SummaryRow, metric: str) -> Interval | None:
    """Return one - other in "accuracy" or "nll" over the seeds that both have; None where they share none."""
    ours, theirs = _by_seeds(one, metric), _by_seeds(other, metric)
    shared = [ours[seeds] - theirs[seeds] for seeds in ours if seeds in theirs]
    return over_seeds(shared) if shared else None


def _by_seeds(row: SummaryRow, metric: str) -> dict[tuple[int, int, int], float]:
    return {run.seeds: value for run in row.fresh if (value := _value(run, metric)) is not None}


def _value(run: FreshRun, metric: str) -> float | None:
    return {"accuracy": run.accuracy, "nll": run.nll}[metric]
