"""Loss against learning rate at one batch size and number of rows: smoothed, and averaged over seeds."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WINDOW = 2.5  # octaves on either side that a local fit sees: five points of a grid with a factor of 2; assumed
FEWEST = 4  # points under which a quadratic would only repeat them; assumed

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Valley:
    """The recorded log losses of one cell, by learning rate and seed; None: that run diverged."""

    log_losses: Mapping[float, Mapping[int, float | None]]
    log_base: float  # of the base model's loss, which a diverged run counts with

    def recorded(self, rate: float, seed: int) -> float | None:
        """Return a seed's log loss, that of the first seed where this one was not recorded; None: it diverged."""
        by_seed = self.log_losses[rate]
        return by_seed[seed] if seed in by_seed else by_seed[min(by_seed)]

    def deviation(self, rate: float, seed: int) -> float | None:
        """Return how far a seed's log loss is from the mean over seeds; None where there is no second seed."""
        known = self._known(rate, ())
        value = self.log_losses[rate].get(seed)
        return value - float(np.mean(known)) if value is not None and len(known) > 1 else None

    def smoothed(self, without: Collection[int] = ()) -> dict[float, float]:
        """Return the smoothed mean log loss at each learning rate; that of the base where any seed diverged.

        Local quadratic regression in the logarithm of the learning rate, tricube weights (Cleveland 1979). Seeds in
        `without` are left out where another one was recorded.
        """
        means = {rate: self._mean(rate, without) for rate in sorted(self.log_losses)}
        finished = [(math.log2(rate), mean) for rate, mean in means.items() if mean is not None]
        places, values = np.array([place for place, _ in finished]), np.array([value for _, value in finished])
        return {
            rate: self.log_base if mean is None else _local_quadratic(places, values, math.log2(rate))
            for rate, mean in means.items()
        }

    def _mean(self, rate: float, without: Collection[int]) -> float | None:
        if any(value is None for value in self.log_losses[rate].values()):
            return None
        return float(np.mean(self._known(rate, without) or self._known(rate, ())))

    def _known(self, rate: float, without: Collection[int]) -> list[float]:
        by_seed = self.log_losses[rate]
        return [value for seed, value in by_seed.items() if value is not None and seed not in without]


def _local_quadratic(places: Floats, values: Floats, at: float) -> float:
    """Return the fit's value at a place; the recorded value where too few points are near."""
    weights = np.clip(1 - np.abs((places - at) / WINDOW) ** 3, 0, None) ** 3
    near = weights > 0
    if near.sum() < FEWEST:
        return float(values[np.argmin(np.abs(places - at))])
    root = np.sqrt(weights[near])
    offsets = places[near] - at
    design = np.stack([np.ones_like(offsets), offsets, offsets**2], axis=1)
    solution = np.linalg.lstsq(design * root[:, None], values[near] * root, rcond=None)[0]
    return float(solution[0])
