"""What the claims on optimal learning rates share: eta* of the series of one method, and its spread over seeds."""

import numpy as np

from welltuned.analysis.claims._claim import Answer, judge, lacks
from welltuned.analysis.estimate import redraw
from welltuned.analysis.grid import Mean, Place, cells, means, pooled_noise, uncertain
from welltuned.analysis.optimum import estimate
from welltuned.analysis.rate_scaling import Series, exponent
from welltuned.analysis.runs import Table

NUM_DRAWS = 400  # of every cell; assumed


def judge_slope(members: tuple[Series, ...], versus: str, low: float, high: float) -> Answer:
    """Judge the common exponent of some series."""
    found = exponent(members, versus)
    if found is None:
        edges = sum(member.num_edges for member in members)
        also = f" ({edges} optima lie on the edge of the rates tried)" if edges else ""
        return lacks(f"optimal learning rates, enclosed by those tried, at two values of {versus}{also}")
    detail = f"{found.num_points} optima in {len(found.series)} series, over a factor of {found.span:g}"
    return judge(found.slope, "exponent", low, high, detail)


def rate_draws(table: Table, generator: np.random.Generator) -> dict[Place, tuple[float, np.ndarray | None]]:
    """Return ln eta* of every cell with an enclosed optimum, and its redrawn twins over seeds (None: no repeats).

    A draw whose best rate is on the edge counts with that rate, which keeps the interval from running away.
    """
    noise = pooled_noise(table)
    found: dict[Place, tuple[float, np.ndarray | None]] = {}
    for place, cell in cells(means(table)).items():
        rates = [member.place.learning_rate for member in cell if member.place.learning_rate is not None]
        if len(rates) < len(cell):
            continue
        rate = estimate(rates, [-table.sign * member.value for member in cell]).learning_rate
        if rate is not None:
            found[place] = (float(np.log(rate)), _draws(table, cell, rates, noise, generator))
    return found


def _draws(
    table: Table, cell: tuple[Mean, ...], rates: list[float], noise: dict, generator: np.random.Generator
) -> np.ndarray | None:
    drawn = redraw([uncertain(member, noise) for member in cell], generator, NUM_DRAWS)
    if drawn is None:
        return None
    found = [estimate(rates, [-table.sign * float(value) for value in draw]) for draw in drawn]
    return np.log([one.learning_rate or one.best_rate for one in found])
