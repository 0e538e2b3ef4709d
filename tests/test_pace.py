"""A pace is that of late: slow beginnings are forgotten, and little is known at first."""

import pytest

from welltuned.costs.pace import Pace


def paced(counts, least_seconds=10.0):
    """Return the pace after one count a second."""
    pace = Pace(least_seconds)
    for second, count in enumerate(counts):
        pace.add(float(second), count)
    return pace.per_second


def test_nothing_is_known_of_one_count_or_of_no_time():
    assert Pace(10.0).per_second == 0 and paced([5.0]) == 0
    pace = Pace(10.0)
    pace.add(1.0, 0.0)
    pace.add(1.0, 5.0)
    assert pace.per_second == 0


def test_an_even_pace_is_itself():
    assert paced([3.0 * second for second in range(200)]) == pytest.approx(3.0)


def test_a_slow_beginning_is_forgotten():
    """40 seconds of nothing, then 1 a second: half of it at once, and all of it once as much time has gone by."""
    counts = [max(0.0, second - 40.0) for second in range(101)]
    assert paced(counts[:61]) == pytest.approx(20 / 30)
    assert paced(counts) == pytest.approx(1.0)


def test_the_window_is_never_shorter_than_asked_for():
    assert paced([0.0] * 5 + [10.0] * 5, least_seconds=100.0) == pytest.approx(10 / 9)
    assert paced([0.0] * 4 + [10.0] * 16, least_seconds=2.0) == 0


def test_counts_that_come_seldom_keep_two():
    pace = Pace(1.0)
    for second in (0.0, 50.0, 400.0):
        pace.add(second, second / 10)
    assert pace.per_second == pytest.approx(0.1)
