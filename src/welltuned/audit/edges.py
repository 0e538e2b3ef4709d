"""Best values on the edge of what was tried: an optimum there is no optimum, since a better one may lie beyond.

The edge is looked for where the other two knobs and all settings are those of the best configuration; where nothing
else was tried there, over all values.
"""

from collections.abc import Sequence

from welltuned.analysis.grid import Mean

KNOBS = ("learning_rate", "batch_size", "rank")


def value_of(one: Mean, knob: str) -> float | None:
    """Return a configuration's value of a knob."""
    values = (one.place.learning_rate, one.place.batch_size, one.place.rank)
    return values[KNOBS.index(knob)]


def edge(knob: str, mine: Sequence[Mean], winner: Mean) -> str | None:
    """Say at which end of the values tried the best one is: "low", "high", "" inside; None where none can be told."""
    same = [one for one in mine if _others(one, knob) == _others(winner, knob)]
    values = _tried(same, knob)
    if len(values) < 2:
        values = _tried(mine, knob)
    chosen = value_of(winner, knob)
    if len(values) < 2 or chosen is None:
        return None
    return "low" if chosen == values[0] else "high" if chosen == values[-1] else ""


def _tried(configurations: Sequence[Mean], knob: str) -> list[float]:
    return sorted({value for one in configurations if (value := value_of(one, knob)) is not None})


def _others(one: Mean, knob: str) -> tuple[object, ...]:
    return (*(value_of(one, other) for other in KNOBS if other != knob), one.place.setting, one.place.num_train)
