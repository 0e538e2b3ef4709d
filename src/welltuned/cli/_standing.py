"""Where a running study stands, read from its store by another process, and how that reads on a terminal.

The store knows the points of a trial's curve and not the progress between them, so a running pack moves in steps.
"""

import json
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from welltuned.analysis.cells import key_of
from welltuned.analysis.summary import PROBLEM, SummaryRow, summarise
from welltuned.analysis.wording import Key, count_text, label, nats_text, plural, rate_text
from welltuned.cli._text import duration, table, training
from welltuned.costs import flops
from welltuned.records import Point, Result, Role, Status, TrainJob, Trial
from welltuned.spec import Spec
from welltuned.store import Counts, Store

if TYPE_CHECKING:
    from rich.console import Group

HEADINGS = ("", "cell", "ended", "diverged", "best rate", "validation loss", "fresh seeds")
QUIET_SECONDS = 60.0  # assumed: silence that is worth a word


@dataclass(frozen=True)
class Standing:
    """How far a study is. Work is counted in trials: in most studies they train on equally many rows."""

    name: str
    counts: Counts
    num_reruns: int  # on fresh seeds, expected and not known yet; a cell that diverges as a whole has none
    doing: str  # what is under way, "" where nothing is
    num_under_way: float  # trials of the running pack, each by the share of its steps that is stored
    seconds_per_trial: float | None  # of the packs that have ended; None before the first
    tokens_per_second: float | None
    selection: Mapping[Key, tuple[int, int]]  # of each cell: its selection trials that have ended, and those known
    rows: tuple[SummaryRow, ...]
    finished: bool

    @property
    def num_ended(self) -> int:
        """Return the number of trials that have ended, however they did."""
        return self.counts.num_trials - self.counts.num_open

    @property
    def num_planned(self) -> int:
        """Return the number of trials that the study will have, as far as it is known."""
        return self.counts.num_trials + self.num_reruns

    @property
    def num_trained(self) -> float:
        """Return the number of trials that are trained, those under way in part."""
        return self.num_ended + self.num_under_way

    @property
    def left_seconds(self) -> float | None:
        """Return the time that training takes from here at the speed so far; None before anything can be said."""
        left = self.num_planned - self.num_trained
        return self.seconds_per_trial * left if self.seconds_per_trial is not None and left > 0 else None


def read(store: Store) -> Standing:
    """Read where a study stands."""
    cell = tuple(json.loads(store.fact("cell") or "[]"))
    trials, results, jobs = store.trials(), store.results(), store.open_jobs()
    known = Counter(key_of(trial.config, cell) for trial in trials if trial.role is Role.SELECT)
    ended_of = Counter(key_of(result.config, cell) for result in results if result.role is Role.SELECT)
    reruns_known = any(trial.role is Role.CONFIRM for trial in trials)
    search = Spec.parse(store.spec_text).search
    # One winner of each cell is rerun; with a budget, one of each method and problem.
    confirmed = known if search.budget is None else {tuple(part for part in key if _is_choice(part)) for key in known}
    running = jobs[0] if jobs else None  # the loop runs them one after the other
    ended = {result.trial_id for result in results}
    doing, under_way = "", 0.0
    if isinstance(running, TrainJob):
        doing = training(len(running.trials))
        points = [event for job, event in store.events("Point") if job == running.id and isinstance(event, Point)]
        under_way = _under_way([trial for trial in running.trials if trial.id not in ended], points)
    elif running is not None:
        doing = f"grading {plural(len(running.trials), 'adapter')}"
    seconds, tokens = _speed(results, {job.id for job in jobs})
    return Standing(
        name=store.name,
        counts=store.counts(),
        num_reruns=0 if reruns_known else len(confirmed) * search.fresh_seeds,
        doing=doing,
        num_under_way=under_way,
        seconds_per_trial=seconds,
        tokens_per_second=tokens,
        selection={key: (ended_of[key], num) for key, num in known.items()},
        rows=summarise(results, cell),
        finished=store.fact("finished") is not None,
    )


def _is_choice(part: tuple[str, object]) -> bool:
    return part[0] == "method" or part[0] in PROBLEM


def lines(standing: Standing, quiet_seconds: float = 0.0) -> tuple[str, str]:
    """Return the line that says how far the study is, and the table of the best so far of every cell."""
    counts = standing.counts
    parts = [f"{standing.num_ended}/{standing.num_planned} trials"]
    parts += [f"{counts.num_diverged} diverged"] if counts.num_diverged else []
    parts += [f"{counts.num_lost} lost"] if counts.num_lost else []
    parts.append(f"{plural(counts.num_jobs - counts.num_jobs_open, 'job')} of {counts.num_jobs} done")
    if standing.tokens_per_second is not None:
        parts.append(f"{count_text(standing.tokens_per_second)} tokens/s")
    if standing.left_seconds is not None:
        parts.append(f"about {duration(standing.left_seconds)} left")
    parts += [standing.doing] if standing.doing else []
    if quiet_seconds >= QUIET_SECONDS:
        parts.append(f"nothing new for {duration(quiet_seconds)}")
    found = {row.key: row for row in standing.rows}
    rows = [_cells(key, standing.selection[key], found.get(key)) for key in standing.selection]
    return ", ".join(parts), table(HEADINGS, rows) if rows else "looking at the base and its data: no trial yet"


def picture(standing: Standing, quiet_seconds: float = 0.0) -> "Group":
    """Draw it for a terminal that redraws: the name, a bar, and what `lines` says."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.text import Text

    state, cells = lines(standing, quiet_seconds)
    bar = ProgressBar(total=max(1, standing.num_planned), completed=standing.num_trained, width=60)
    note = "By validation loss, (in parentheses) as selected on; nothing is decided yet. Ctrl-C ends the view only."
    return Group(Text(standing.name), bar, Text(state), Text(), Text(cells), Text(), Text(note))


def _under_way(trials: Sequence[Trial], points: Sequence[Point]) -> float:
    steps = {trial.id: 0 for trial in trials}
    for point in points:
        if point.trial_id in steps:
            steps[point.trial_id] = max(steps[point.trial_id], point.step)
    return sum(min(1.0, steps[trial.id] / max(1, flops.num_steps(trial.config))) for trial in trials)


def _speed(results: Sequence[Result], open_jobs: set[str]) -> tuple[float | None, float | None]:
    """Return seconds per full trial and tokens per second of the packs that have ended; its seconds are its share."""
    timed = {
        result.trial_id: result
        for result in results
        if result.pack_id not in open_jobs and result.status is not Status.LOST and result.seconds > 0
    }
    if not timed:
        return None, None
    full = [result.seconds for result in timed.values() if result.role is not Role.PROBE]
    rate = sum(result.num_tokens for result in timed.values()) / sum(result.seconds for result in timed.values())
    return statistics.fmean(full) if full else None, rate


def _cells(key: Key, selection: tuple[int, int], row: SummaryRow | None) -> tuple[str, ...]:
    ended = f"{selection[0]}/{selection[1]}"
    if row is None:
        return "", label(key), ended, "", rate_text(None), nats_text(None), "0"
    loss = nats_text(row.fresh_nll.mean) if row.fresh_nll is not None else f"({nats_text(row.selection_nll)})"
    diverged = str(row.num_diverged) if row.num_diverged else ""
    winner = "*" if row.is_winner else ""
    return winner, row.label, ended, diverged, rate_text(row.selected_rate), loss, str(len(row.fresh))
