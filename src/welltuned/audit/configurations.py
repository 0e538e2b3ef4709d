"""Repeats grouped into configurations (analysis/grid.py), and what an audit asks of one: its seeds, its items.

A configuration is everything but the seed. Its mean is over runs, a stated mean of several seeds weighing as many;
diverged runs are in it.
"""

from collections.abc import Sequence

from welltuned.analysis.grid import Mean, means
from welltuned.analysis.runs import Pairs
from welltuned.audit.records import Side


def group(side: Side) -> tuple[Mean, ...]:
    """Group the runs of a side into configurations."""
    return means(side.table)


def of(configurations: Sequence[Mean], method: str, problem: Pairs) -> tuple[Mean, ...]:
    """Return a method's configurations on a problem."""
    return tuple(one for one in configurations if one.place.method == method and one.place.problem == problem)


def best(configurations: Sequence[Mean], side: Side) -> Mean:
    """Return the configuration with the best mean; of equals the one with the lowest learning rate."""
    sign = side.table.sign
    return min(configurations, key=lambda one: (-sign * one.value, one.place.learning_rate or 0.0))


def key_of(one: Mean) -> tuple[object, ...]:
    """Return what identifies a configuration on both sides of a book: all that was set, whether it varies or not."""
    run, place = one.runs[0], one.place
    return (run.method, run.problem, place.learning_rate, place.batch_size, place.rank, run.setting)


def shares_seed(one: Mean) -> bool:
    """Say whether a configuration's repeats carry one and the same seed, so that a seed's effect is not in them."""
    seeds = {run.seed for run in one.runs}
    return len(one.runs) > 1 and len(seeds) == 1 and None not in seeds


def repeats_seed(one: Mean) -> bool:
    """Say whether one of a configuration's several seeds stands in more than one run."""
    seeds = [run.seed for run in one.runs]
    return None not in seeds and 1 < len(set(seeds)) < len(seeds)


def num_items(one: Mean) -> int | None:
    """Return the number of test items, None where it is not stated or not the same for all runs."""
    found = {run.num_items for run in one.runs if not run.diverged or run.num_items is not None}
    return found.pop() if len(found) == 1 else None
