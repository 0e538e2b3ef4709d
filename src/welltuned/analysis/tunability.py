"""What tuning is worth to each method: its tuned value minus that of a default (Probst et al. 2019, eq. 6).

The tuned configuration is the best mean over all learning rates, batch sizes and ranks tried with the method.
Its value is read off fresh reruns where there are any; else it is the value that was selected on, which is too good
(`fresh` says which). The default was not selected, so that its mean over the selection seeds is a fair one. It is a
published configuration or whatever the caller gives, and where the grid lacks it, the nearest point, shown with its
factors.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from welltuned.analysis.estimate import Estimate
from welltuned.analysis.grid import Mean, Place, Tuned, advantage, means, pooled_noise, tuned
from welltuned.analysis.published import PUBLISHED, Fixed, Nearest, nearest
from welltuned.analysis.runs import Table


@dataclass(frozen=True)
class Tunability:
    """The gain of tuning one method over one default; positive: tuning helped."""

    default: Nearest
    tuned_place: Place
    default_value: float
    tuned_value: float
    gain: Estimate  # in the metric's unit, larger is better
    fresh: bool  # the tuned value was never selected on


def best_of(cells: Sequence[Tuned], sign: int) -> Tuned:
    """Return the cell whose selection value is best; the first of equals."""
    return max(cells, key=lambda cell: sign * (cell.value if cell.selection_value is None else cell.selection_value))


def tunability(table: Table, defaults: Sequence[Fixed] = PUBLISHED) -> tuple[Tunability, ...]:
    """Return the gain of every method of every problem over each default."""
    grids: defaultdict[Place, list[Mean]] = defaultdict(list)
    cells: defaultdict[Place, list[Tuned]] = defaultdict(list)
    for member in means(table):
        grids[_family(member.place)].append(member)
    for cell in tuned(table):
        cells[_family(cell.place)].append(cell)
    noise = pooled_noise(table)
    found: list[Tunability] = []
    for family, grid in grids.items():
        if not cells[family]:
            continue
        best = best_of(cells[family], table.sign)
        for default in defaults:
            near = nearest(default, [member.place for member in grid])
            if near is None:
                continue
            at = next(member for member in grid if member.place == near.place)
            gap = advantage(best, at, table, noise)
            found.append(Tunability(near, best.place, at.value, best.value, gap, best.fresh))
    return tuple(found)


def _family(place: Place) -> Place:
    return place.without("learning_rate", "batch_size", "rank")
