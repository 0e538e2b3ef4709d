"""Within what a conclusion that survives holds: two best configurations were compared, and no others.

"A is better than B" is then "A's best of what was tried is better than B's best": it is said which two these are, over
what they are the best, and at which batch sizes and ranks inside of that the other method is ahead.
"""

from collections.abc import Sequence

from welltuned.analysis.grid import Mean
from welltuned.analysis.wording import rate_text
from welltuned.audit import edges
from welltuned.audit.configurations import best, of
from welltuned.audit.records import Side
from welltuned.audit.tuned import NOUNS, Tuned

SIZES = ("batch_size", "rank")


def scope(winner: Tuned, loser: Tuned, tried: Sequence[Mean], side: Side) -> list[str]:
    """Say what was compared, and where the order turns, by the numbers of the side that chose."""
    found = [_ranges(winner, loser), f"{_place(winner)} against {_place(loser)}"]
    ours, theirs = (of(tried, row.method, row.problem) for row in (winner, loser))
    for name in SIZES:
        turned = [f"{value:g}" for value in _shared(name, ours, theirs) if _turns(name, value, ours, theirs, side)]
        if turned:
            found.append(f"but {loser.method} is ahead at {_noun(name, len(turned))} {', '.join(turned)}")
    return found


def _ranges(winner: Tuned, loser: Tuned) -> str:
    """Say over which batch sizes and ranks each is at its best, and which are the same for all."""
    values = {name: sorted({*winner.knob(name).values, *loser.knob(name).values}) for name in SIZES}
    several = [f"{NOUNS[name]}s {found[0]:g} to {found[-1]:g}" for name, found in values.items() if len(found) > 1]
    single = [f"{NOUNS[name]} {found[0]:g} only" for name, found in values.items() if len(found) == 1]
    unsaid = [f"{NOUNS[name]}s that are not said" for name, found in values.items() if not found]
    parts = [f"each at its best of {' and '.join(several)}"] if several else []
    return ", ".join([*parts, *(f"at {text}" for text in (*single, *unsaid))])


def _place(row: Tuned) -> str:
    place = row.chosen.place
    rate = "" if place.learning_rate is None else f"learning rate {rate_text(place.learning_rate)}"
    sizes = [f"{NOUNS[name]} {value:g}" for name in SIZES if (value := edges.value_of(row.chosen, name)) is not None]
    return f"{row.method} ({', '.join(part for part in (rate, *sizes) if part) or 'where is not said'})"


def _noun(name: str, count: int) -> str:
    return NOUNS[name] if count == 1 else f"{NOUNS[name]}s"


def _shared(name: str, ours: Sequence[Mean], theirs: Sequence[Mean]) -> list[float]:
    mine, other = ({edges.value_of(one, name) for one in members} for members in (ours, theirs))
    return sorted(value for value in mine & other if value is not None)


def _turns(name: str, value: float, ours: Sequence[Mean], theirs: Sequence[Mean], side: Side) -> bool:
    """Say whether the loser is ahead at one batch size or rank, each at its best there."""
    one, other = (best([m for m in members if edges.value_of(m, name) == value], side) for members in (ours, theirs))
    return side.table.better(other.value, one.value)
