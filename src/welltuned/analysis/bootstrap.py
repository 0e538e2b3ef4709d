"""Two-level bootstrap of a paired difference, seeds x items: a cross-check of the crossed interval, never the verdict.

Each resample draws S seeds and, in every task, I items with replacement, and takes the mean over the drawn rows and
columns of d[seed, item]; the interval is between percentiles (the "pigeonhole" bootstrap: Owen, Annals of Applied
Statistics 1, 2007). It is known to be too narrow with few seeds, whose spread it takes as (S - 1) / S of what it is,
and too wide where residuals dominate, whose variance it counts three times (once with the seeds, once with the items,
once alone). docs/calibration.md has both measured.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Bootstrap:
    """Percentiles of the resampled means."""

    low95: float
    high95: float
    low90: float
    high90: float
    num_resamples: int


def two_level(
    tasks: Sequence[NDArray[np.float64]], generator: np.random.Generator, num_resamples: int = 2000
) -> Bootstrap:
    """Return percentile intervals of the average of the tasks' means; all tasks share the drawn seeds.

    `generator` comes from `rng.stream`: the same stream gives the same interval.
    """
    if len({task.shape[0] for task in tasks}) != 1:
        raise ValueError("bootstrap: got tasks with different numbers of seeds, expected the same seeds in every task")
    means = resampled_means(tasks, generator, num_resamples)
    low95, low90, high90, high95 = (float(end) for end in np.quantile(means, (0.025, 0.05, 0.95, 0.975)))
    return Bootstrap(low95, high95, low90, high90, num_resamples)


def resampled_means(
    tasks: Sequence[NDArray[np.float64]], generator: np.random.Generator, num_resamples: int
) -> NDArray[np.float64]:
    """Return the means of the resamples; how often a seed or an item was drawn is its weight."""
    num_seeds = tasks[0].shape[0]
    seeds = generator.multinomial(num_seeds, np.full(num_seeds, 1 / num_seeds), num_resamples) / num_seeds
    total = np.zeros(num_resamples)
    for task in tasks:
        num_items = task.shape[1]
        items = generator.multinomial(num_items, np.full(num_items, 1 / num_items), num_resamples) / num_items
        total += np.sum((seeds @ task) * items, axis=1)
    return total / len(tasks)
