"""Where a guided search expects the optimal learning rate before it has seen anything: a rule, and how far it may be off.

Without knowledge of the base model the rule is centred on the middle of the learning rates offered; batch size, rank and
samples move it with the field's exponents. Every number is only where the posterior starts from.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from welltuned.costs import flops
from welltuned.records import Config

BATCH = 0.4  # exponent of the batch size: .5 by theory for sign-like updates, .51 to .62 on Gemma, less what steps explain
PRODUCT = -0.5  # of alpha times rank, for a random A and a B of zero (muA, arXiv 2602.06204)
SAMPLES = -0.2  # of the samples trained on; Gemma-3-1B (arXiv 2602.04998)
BOX = 0.25  # standard deviation of the centre, as a part of the offered rates' width; assumed
LEAST_SD = 1.0  # octaves; assumed


def expected(configs: Sequence[Config], offered: Sequence[Config]) -> NDArray[np.float64]:
    """Return log2 of the learning rate that is expected to be best for each configuration, of a choice's offered ones."""
    centre = np.array([_position(config) for config in offered])
    middle = (centre.min(axis=0) + centre.max(axis=0)) / 2
    place = np.array([_position(config) for config in configs]) - middle
    return middle[0] + place[:, 1:] @ np.array([BATCH, PRODUCT, SAMPLES])


def centre_sd(offered: Sequence[Config]) -> float:
    """Return the standard deviation of the study's common centre, in octaves."""
    rates = [math.log2(config.learning_rate) for config in offered]
    return max(LEAST_SD, BOX * (max(rates) - min(rates)))


def _position(config: Config) -> tuple[float, float, float, float]:
    product = math.log2(config.scaling * config.rank) if config.rank else 0.0
    samples = math.log2(flops.num_samples(config))
    return math.log2(config.learning_rate), math.log2(config.batch_size), product, samples
