"""Best values on the edge of what was tried: an optimum there is no optimum, since a better one may lie beyond.

The edge is looked for where the other two knobs and all settings are those of the best configuration. Where nothing
else was tried there: of a learning rate at the same batch size and rank, whatever the settings, and no further, since
a rate that was varied only together with the batch size was not tuned; of the others over all values.
"""

from collections.abc import Sequence

from welltuned.analysis.grid import Mean

KNOBS = ("learning_rate", "batch_size", "rank")


def value_of(one: Mean, knob: str) -> float | None:
    """Return a configuration's value of a knob."""
    values = (one.place.learning_rate, one.place.batch_size, one.place.rank)
    return values[KNOBS.index(knob)]


def tried(knob: str, mine: Sequence[Mean], winner: Mean) -> list[float]:
    """Return the values among which the best one was found, ascending."""
    same = [one for one in mine if _others(one, knob) == _others(winner, knob)]
    values = _tried(same, knob)
    if len(values) > 1:
        return values
    near = [one for one in mine if _sizes(one, knob) == _sizes(winner, knob)] if knob == "learning_rate" else mine
    return _tried(near, knob)


def edge(values: Sequence[float], chosen: float | None) -> str | None:
    """Say at which end of the values tried the best one is: "low", "high", "" inside; None where none can be told."""
    if len(values) < 2 or chosen is None:
        return None
    return "low" if chosen == values[0] else "high" if chosen == values[-1] else ""


def _tried(configurations: Sequence[Mean], knob: str) -> list[float]:
    return sorted({value for one in configurations if (value := value_of(one, knob)) is not None})


def _others(one: Mean, knob: str) -> tuple[object, ...]:
    return (*_sizes(one, knob), one.place.setting)


def _sizes(one: Mean, knob: str) -> tuple[object, ...]:
    return (*(value_of(one, other) for other in KNOBS if other != knob), one.place.num_train)
