"""What the figures of analysis/grid.py's tables share: the table itself, and names for what differs between places."""

from collections.abc import Sequence

from welltuned.analysis.grid import Place
from welltuned.analysis.runs import NLL, Table, of_results
from welltuned.analysis.wording import Key, label
from welltuned.records import Result


def loss_table(results: Sequence[Result]) -> Table:
    """Return the results in validation NLL, which selection reads and every trial has."""
    return of_results(results, NLL)


def names_of(places: Sequence[Place]) -> dict[Place, str]:
    """Name every place by that in which it differs from the others; "" where nothing differs.

    The method is left out: a figure shows it by colour, marker and legend.
    """
    keys = {place: _pairs(place) for place in dict.fromkeys(places)}
    values: dict[str, set[str]] = {}
    for pairs in keys.values():
        for name, value in pairs:
            values.setdefault(name, set()).add(str(value))
    varied = {name for name, found in values.items() if len(found) > 1}
    return {place: _named([pair for pair in pairs if pair[0] in varied]) for place, pairs in keys.items()}


def _pairs(place: Place) -> Key:
    numbers = [(name, getattr(place, name)) for name in ("num_train", "rank", "batch_size", "learning_rate")]
    pairs = dict((*place.problem, *place.setting, *((name, value) for name, value in numbers if value is not None)))
    return tuple(pairs.items())


def _named(pairs: Sequence[tuple[str, object]]) -> str:
    return label(tuple(pairs)) if pairs else ""


def series_name(method: str, rest: str) -> str:
    """Name a line: its method, and what else tells it apart."""
    return f"{method}, {rest}" if rest else method
