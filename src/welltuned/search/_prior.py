"""Where a guided search expects the optimal learning rate before it has seen anything, and how far off that may be.

The rule is `transfer.prior`: a centre for the base's width, and how it moves with method, rank, batch size and samples.
The offered rates are knowledge as well: their middle, weighted by their width, moves the whole rule. Where the
curvature of each method and rank at the start was measured, it moves them against each other. Every number is only
where the posterior starts from, and is widened where results contradict it (`_models.py`).
"""

import dataclasses
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from welltuned.analysis.curvature import Key, key_of
from welltuned.costs import flops
from welltuned.records import Config
from welltuned.transfer import Prior, prior

BOX = 0.25  # standard deviation of the middle of the offered rates, as a part of their width; assumed
LEAST_SD = 1.0  # octaves; assumed
# Least of the slopes', octaves per octave. On abacus-small at rank 8, lora, from 256 to 1,024 samples, the optimum
# rises by 0.4 where the rule says -0.2: measured on that development surface.
SLOPE_SD = 0.4
ANY_WIDTH = 1024  # of a base that is not known: the slopes and shifts hardly depend on it
# What curvature says of a method and rank: eta* goes as lambda^POWER, lambda the largest eigenvalue of the Hessian of
# all trained numbers at the start.
POWER = -0.5
CURVATURE_SD = 0.55  # octaves, of a method that is left out; see docs/curvature.md
RULE_SD = 0.25  # octaves, least error of what the rules say of a method and rank; assumed


@dataclass(frozen=True)
class Rule:
    """log2 of the learning rate that is expected to be best, anywhere in a study; standard deviations in octaves."""

    priors: Mapping[Key, tuple[Prior, float, float]]  # by base, method, rank, alpha; at this log2 B and log2 N
    offset: float
    centre_sd: float
    batch_sd: float
    rank_sd: float
    samples_sd: float

    def expected(self, configs: Sequence[Config]) -> NDArray[np.float64]:
        """Return [N]: the expectation for each configuration."""
        return np.array([self.offset + _at(self.priors[key_of(config)], config) for config in configs])


def rule(
    offered: Sequence[Config],
    width_of: Callable[[Config], int | None],
    sharpness_of: Callable[[Config], float | None],
) -> Rule:
    """Return the rule of a study that offers these configurations.

    `width_of` gives their base's hidden size; where one is not known, the rules say how the optimum moves, and the
    offered rates alone where it is. `sharpness_of` gives the largest eigenvalue of each method and rank at the start,
    of all or of none of them.
    """
    first = {key_of(config): config for config in reversed(offered)}
    widths = {key: width_of(config) for key, config in first.items()}
    priors = {key: _prior_of(config, widths[key] or ANY_WIDTH) for key, config in first.items()}
    known = {key: sharpness for key, config in first.items() if (sharpness := sharpness_of(config)) is not None}
    if len(known) == len(first):
        priors = _with_curvature(priors, known)
    rates = [math.log2(config.learning_rate) for config in offered]
    box_sd = max(LEAST_SD, BOX * (max(rates) - min(rates)))
    middles = {(key_of(config), config.batch_size, flops.num_samples(config)): config for config in offered}
    rule_middle = float(np.mean([_at(priors[key_of(config)], config) for config in middles.values()]))
    unknown = any(width is None for width in widths.values())
    precision = 0.0 if unknown else 1 / max(found.sd_octaves for found, _, _ in priors.values()) ** 2
    trust = precision / (precision + 1 / box_sd**2)
    one = next(iter(priors.values()))[0]
    return Rule(
        priors,
        (1 - trust) * ((min(rates) + max(rates)) / 2 - rule_middle),
        math.sqrt(1 / (precision + 1 / box_sd**2)),
        *(max(SLOPE_SD, slope.sd) for slope in (one.batch_slope, one.rank_slope, one.samples_slope)),
    )


def _prior_of(config: Config, base_width: int) -> tuple[Prior, float, float]:
    samples = flops.num_samples(config)
    found = prior(base_width, config.method, max(1, config.rank), config.alpha, config.batch_size, samples)
    return found, math.log2(config.batch_size), math.log2(samples)


def _with_curvature(
    priors: Mapping[Key, tuple[Prior, float, float]], sharpness: Mapping[Key, float]
) -> dict[Key, tuple[Prior, float, float]]:
    """Move the centres to the weighted mean of what the rules and the curvature say of each method and rank.

    Curvature says how these differ and not where they lie: its level is the one that fits the rules best.
    """
    ranks = {key: math.log2(max(1, key[2])) for key in priors}
    middle = statistics.fmean(ranks.values())
    weights: dict[Key, float] = {}
    ahead: dict[Key, float] = {}
    for key, (found, _, _) in priors.items():
        off = found.rank_slope.sd * (ranks[key] - middle)
        weights[key] = 1 / (RULE_SD**2 + found.shift_sd_octaves**2 + off**2)
        ahead[key] = POWER * math.log2(sharpness[key]) - found.centre_log2
    level = statistics.fmean(ahead.values(), weights.values())
    moved: dict[Key, tuple[Prior, float, float]] = {}
    for key, (found, batch, samples) in priors.items():
        share = CURVATURE_SD**-2 / (CURVATURE_SD**-2 + weights[key])
        centre = found.centre_log2 + share * (ahead[key] - level)
        moved[key] = dataclasses.replace(found, centre_log2=centre), batch, samples
    return moved


def _at(known: tuple[Prior, float, float], config: Config) -> float:
    found, batch, samples = known
    moved = found.batch_slope.value * (math.log2(config.batch_size) - batch)
    moved += found.samples_slope.value * (math.log2(flops.num_samples(config)) - samples)
    return found.centre_log2 + moved
