"""What a running study shows: a bar on a terminal, otherwise a line with the time of day now and then."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType
from typing import Protocol, TextIO

from welltuned.analysis.wording import count_text, plural
from welltuned.cli._text import duration, training
from welltuned.costs.pace import Pace
from welltuned.records import (
    ORACLE,
    Event,
    ExamJob,
    JobEnd,
    JobLost,
    Outcome,
    Progress,
    RetentionJob,
    Role,
    Status,
    Survey,
    SurveyJob,
    TrainJob,
)
from welltuned.store import Counts
from welltuned.study import Note, Notice, Planned, Started

PACE_SECONDS = 60.0  # of the past that the time left is told from, at least; assumed
LEAST_GAIN = 0.005  # share of the study that has to be done before; assumed
PLAIN_SECONDS = 15.0  # between two plain lines of progress


class Screen(Protocol):
    """Where lines and the state of affairs are shown."""

    def line(self, text: str) -> None:
        """Show a line that stays."""
        ...

    def state(self, state: "State") -> None:
        """Show how far the study is."""
        ...

    def close(self) -> None:
        """Stop showing."""
        ...


@dataclass
class State:
    """How far a study is. Work is counted in trials: in most studies they train on equally many rows."""

    num_trials: int = 0
    num_ended: int = 0
    num_diverged: int = 0
    job_trials: int = 0  # of the running pack
    job_fraction: float = 0.0
    tokens_per_second: float = 0.0
    note: str = ""
    pace: Pace = field(default_factory=lambda: Pace(PACE_SECONDS))  # of the share
    began_share: float = 0.0
    is_open: bool = False  # the search will want more trials than are known

    def share(self) -> float:
        """Return the share of the study's trials that are trained, those that are under way in part."""
        if not self.num_trials:
            return 0.0
        return min(1.0, (self.num_ended + self.job_trials * self.job_fraction) / self.num_trials)

    def begin(self, now: float) -> None:
        """Forget how fast it went so far: what comes is of another kind."""
        self.pace, self.began_share = Pace(PACE_SECONDS), self.share()
        self.pace.add(now, self.share())

    def left_seconds(self) -> float | None:
        """Return the time that is left if it goes on as of late; None before anything can be said."""
        gained, left, per_second = self.share() - self.began_share, 1 - self.share(), self.pace.per_second
        if self.is_open or gained <= LEAST_GAIN or left <= 0 or per_second <= 0:
            return None
        return left / per_second

    def text(self) -> str:
        """Say it in one line."""
        parts = [f"{self.num_ended}/{self.num_trials} trials{' known so far' if self.is_open else ''}"]
        if self.num_diverged:
            parts.append(f"{self.num_diverged} diverged")
        if self.tokens_per_second:
            parts.append(f"{count_text(self.tokens_per_second)} tokens/s")
        left = self.left_seconds()
        if left is not None:
            parts.append(f"about {duration(left)} left")
        doing = self.note if self.job_trials else f"{self.note} {100 * self.job_fraction:.0f} %"
        return ", ".join(parts) + (f" ({doing})" if self.note else "")


class Observer:
    """Listens to a study and tells a screen; used as a context manager."""

    def __init__(self, screen: Screen, clock: Callable[[], float] = time.monotonic) -> None:
        self._screen = screen
        self._clock = clock
        self._state = State()
        self._num_confirm: int | None = None  # reruns to come, of a search that chooses its trials as it goes
        self._reruns_known = False

    def __enter__(self) -> "Observer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._screen.close()

    def __call__(self, event: Event | Notice) -> None:
        """Take notice of one event."""
        match event:
            case Note():
                self._screen.line(event.text)
            case Survey():
                self._screen.line(f"looked at the base and its data: {plural(len(event.sites), 'site')}")
            case Planned():
                self._planned(event)
            case Started():
                self._started(event)
            case Progress():
                self._state.job_fraction = event.fraction
                self._state.tokens_per_second, self._state.note = event.tokens_per_second, event.note
            case Outcome():
                self._state.num_diverged += event.status is Status.DIVERGED
                self._state.num_ended += 1
                self._state.job_trials = max(0, self._state.job_trials - 1)
            case JobEnd() | JobLost():
                self._ended()
            case _:
                return
        self._state.pace.add(self._clock(), self._state.share())
        self._screen.state(self._state)

    def _planned(self, event: Planned) -> None:
        plan, counts = event.plan, event.counts
        num_select = sum(one.num_trials for one in plan.budgets)
        num_confirm = sum(len(configs) * arm.num_confirm for arm, configs in plan.winners.items())
        self._state.num_trials = num_select + num_confirm
        self._num_confirm = None if plan.budget is None else num_confirm
        self._state.num_ended = counts.num_trials - counts.num_open
        self._state.num_diverged = counts.num_diverged
        self._state.begin(self._clock())
        reruns = f" and {plural(num_confirm, 'rerun')} on fresh seeds" if num_confirm else ""
        if plan.budget is None:
            self._screen.line(f"{plan.spec.name}: {plural(num_select, 'trial')}{reruns}")
        else:
            cost = f"up to {plan.budget * len(plan.budgets):g} full trials' worth"
            self._screen.line(f"{plan.spec.name}: search {plan.spec.search.search}, {cost}{reruns}")
        self._expect(counts, reruns_known=False)
        if self._state.num_ended:
            self._screen.line(f"going on: {plural(self._state.num_ended, 'trial')} are done already")

    def _expect(self, counts: Counts, reruns_known: bool) -> None:
        """Count the trials that are known so far, where a search chooses them as it goes."""
        if self._num_confirm is not None:
            self._state.is_open = not reruns_known
            self._state.num_trials = counts.num_trials + (0 if reruns_known else self._num_confirm)

    def _started(self, event: Started) -> None:
        job = event.job
        if not isinstance(job, SurveyJob):
            self._reruns_known = self._reruns_known or any(trial.role is Role.CONFIRM for trial in job.trials)
        was_open = self._state.is_open
        self._expect(event.counts, self._reruns_known)
        self._state.num_ended = event.counts.num_trials - event.counts.num_open
        self._state.job_fraction, self._state.note = 0.0, ""
        self._state.job_trials = len(job.trials) if isinstance(job, TrainJob) else 0
        if was_open and not self._state.is_open:  # what was trained so far was short in part, and reruns are not
            self._state.begin(self._clock())
        if isinstance(job, TrainJob):
            going_on = ", from its last checkpoint" if job.resume else ""
            self._screen.line(f"{training(len(job.trials))}{going_on}")
        elif isinstance(job, RetentionJob):
            self._screen.line(f"measuring {plural(len(job.trials), 'adapter')} on {job.text}")
        elif isinstance(job, ExamJob) and job.split == ORACLE:
            self._screen.line(f"oracle pass: grading {plural(len(job.trials), 'adapter')} on the test split")
        elif isinstance(job, ExamJob):
            self._screen.line(f"grading {plural(len(job.trials), 'adapter')} on the {job.split} split")

    def _ended(self) -> None:
        self._state.job_trials, self._state.job_fraction = 0, 0.0
        self._state.tokens_per_second, self._state.note = 0.0, ""


class PlainScreen:
    """Lines with the time of day, for a log."""

    def __init__(
        self,
        stream: TextIO,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], datetime] = datetime.now,
    ) -> None:
        self._stream, self._clock, self._wall = stream, clock, wall
        self._last_seconds = clock()

    def line(self, text: str) -> None:
        """Print a line now."""
        print(f"{self._wall():%H:%M:%S} {text}", file=self._stream, flush=True)

    def state(self, state: State) -> None:
        """Print the state, unless it was printed a moment ago."""
        now = self._clock()
        if now - self._last_seconds >= PLAIN_SECONDS:
            self._last_seconds = now
            self.line(state.text())

    def close(self) -> None:
        """Leave the lines as they are."""


class LiveScreen:
    """A bar that is redrawn in place, for a terminal."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        columns = (BarColumn(bar_width=30), TextColumn("{task.description}", markup=False))
        self._progress = Progress(*columns, console=Console(stderr=True), transient=True)
        self._task = self._progress.add_task("starting", total=1.0)
        self._progress.start()

    def line(self, text: str) -> None:
        """Print a line above the bar."""
        self._progress.console.print(text, markup=False, highlight=False)

    def state(self, state: State) -> None:
        """Redraw the bar."""
        self._progress.update(self._task, completed=state.share(), description=state.text())

    def close(self) -> None:
        """Take the bar away."""
        self._progress.stop()


def observer() -> Observer:
    """Return the observer that suits where stderr goes."""
    return Observer(LiveScreen() if sys.stderr.isatty() else PlainScreen(sys.stderr))
