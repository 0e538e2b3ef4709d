"""What a running study shows: counts, speed and time left as of late, as lines in a log or as a bar."""

import sys
from collections import deque
from datetime import datetime

import pytest

from welltuned import study
from welltuned.cli import _progress
from welltuned.records import JobEnd, Progress, TrainJob
from welltuned.store import Counts


class Recorder:
    """A screen that keeps what it was shown."""

    def __init__(self):
        self.lines, self.states, self.closed = [], deque(), False

    def line(self, text):
        self.lines.append(text)

    def state(self, state):
        self.states.append(state.text())

    def close(self):
        self.closed = True


def a_state(**changes) -> _progress.State:
    return _progress.State(**{"num_trials": 10, "job_trials": 5, "job_fraction": 0.5, **changes})


def test_the_time_left_is_what_the_rest_takes_at_this_speed():
    state = a_state(num_ended=0, job_fraction=0.0)
    state.begin(100.0)
    state.num_ended, state.job_fraction = 2, 0.5
    state.pace.add(110.0, state.share())
    assert state.share() == pytest.approx(0.45)
    assert state.left_seconds() == pytest.approx(10 / 0.45 * 0.55)
    assert "about 12 s left" in state.text()


def test_what_began_slowly_is_forgotten():
    """Five minutes of compilation, in which 1 % is trained, and then 0.1 % a second."""
    state = a_state(num_trials=1, job_trials=1, job_fraction=0.0)
    state.begin(0.0)
    for second in range(301):
        state.job_fraction = 0.001 * max(0, second - 200) / 10
        state.pace.add(float(second), state.share())
    slow = state.left_seconds()
    for second in range(301, 701):
        state.job_fraction = 0.01 + 0.001 * (second - 300)
        state.pace.add(float(second), state.share())
    assert slow > 10 * state.left_seconds()
    assert state.left_seconds() == pytest.approx((1 - state.share()) / 0.001, rel=0.2)


def test_nothing_is_said_about_the_time_left_before_anything_is_known():
    for state in (a_state(num_trials=0), a_state(), a_state(num_ended=10, job_trials=0)):
        state.begin(0.0)
        state.pace.add(1.0, state.share())
        assert state.left_seconds() is None
    searching = a_state(is_open=True, job_fraction=0.0)
    searching.begin(0.0)
    searching.job_fraction = 0.5
    searching.pace.add(1.0, searching.share())
    assert searching.left_seconds() is None


def test_a_state_reads_as_one_line():
    state = a_state(num_ended=3, num_diverged=1, tokens_per_second=25_300.0, note="initialising")
    assert state.text() == "3/10 trials, 1 diverged, 25.3 k tokens/s (initialising)"
    assert a_state(job_trials=0, num_ended=10, note="grading").text() == "10/10 trials (grading 50 %)"


COUNTS = Counts(
    num_trials=9,
    num_finished=3,
    num_diverged=0,
    num_stopped=0,
    num_lost=0,
    num_open=6,
    num_graded=0,
    num_jobs=2,
    num_jobs_open=1,
    num_jobs_lost=0,
)


def test_an_observer_counts_what_it_hears():
    screen = Recorder()
    screen.now = 0.0
    with _progress.Observer(screen, clock=lambda: 0.0) as observe:
        observe(study.Note("a line"))
        observe(study.Started(TrainJob("p", (), 4), COUNTS))
        observe(Progress("p", 0.5, 100.0))
        observe(JobEnd("p", 1.0, 1, "{}"))
    assert screen.lines == ["a line", "training 0 trials together"] and screen.closed
    assert screen.states[2] == "3/0 trials, 100 tokens/s"


def test_plain_lines_have_the_time_of_day_and_are_not_too_many(capsys):
    now = [0.0]
    screen = _progress.PlainScreen(sys.stderr, lambda: now[0], lambda: datetime(2026, 1, 2, 3, 4, 5))
    for seconds in (1.0, 14.0, 15.0, 16.0, 31.0):
        now[0] = seconds
        screen.state(a_state(num_ended=int(seconds)))
    screen.line("a note")
    screen.close()
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[1] for line in lines] == ["15/10", "31/10", "a"]
    assert all(line.startswith("03:04:05 ") for line in lines)


def test_a_terminal_gets_a_bar(capsys):
    screen = _progress.LiveScreen()
    screen.line("[bold]not markup[/bold]")
    screen.state(a_state())
    screen.close()
    assert "[bold]not markup[/bold]" in capsys.readouterr().err
