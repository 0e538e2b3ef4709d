"""The shape of a valley: validation loss against the learning rate, gentle below the optimum and steep above. Pure.

In octaves u above the optimal learning rate eta*, the loss rises by a pseudo-Huber below it and a parabola above:
    v(u) = 2 k_low w^2 (sqrt(1 + (u/w)^2) - 1) for u < 0,   k_high u^2 for u >= 0
and a run diverges with probability 1 / (1 + exp(-(u - edge) / SOFT)). The optimum moves by rules that are the same for
all methods, and by a shift of each method:
    log2 eta* = expected(config) + centre + s b + bend b^2 + rho r + h n + shifts of method, choice and setting
with b, r, n = log2 of batch size, rank and samples; `expected` already has the rules' exponents (`_prior.py`).
Legend: S draws, N points, D parameters.
"""

from dataclasses import dataclass

import numpy as np

from welltuned.search._options import Floats, Ints, Points
from welltuned.search._prior import Rule

WIDTH = 2.0  # w, octaves below which the low side is a parabola; assumed
SOFT = 0.4  # octaves over which runs begin to diverge; assumed
# Logarithms of k_low and k_high (scaled losses per octave^2) and of the edge (octaves).
SHAPE = ("log_low", "log_high", "log_edge")
SHAPE_MEAN = (np.log(0.1), np.log(0.3), np.log(3.0))
SHAPE_SD = (1.2, 1.2, 0.5)  # assumed: wide enough that a handful of results decide
BEND_SD = 0.03  # octaves per octave^2; assumed
METHOD_SD = 1.0  # octaves; PiSSA lies 1.3 to 2.0 octaves below LoRA, the others within 1 (arXiv 2602.04998)
CHOICE_SD = 0.4  # of a method's shift from problem to problem; assumed
SETTING_SD = 0.6  # assumed
STEEPEST = 12.0  # octaves above the optimum beyond which the parabola is not evaluated, to keep numbers finite


@dataclass(frozen=True)
class Prior:
    """Independent normal distributions of the D parameters: those of `SHAPE`, then those that move the optimum."""

    mean: Floats
    sd: Floats


def prior(rule: Rule, num_methods: int, num_choices: int, num_settings: int) -> Prior:
    """Return the prior of a study."""
    shifts = [METHOD_SD] * _shifts(num_methods) + [CHOICE_SD] * _own(num_choices, num_methods)
    shifts += [SETTING_SD] * _shifts(num_settings)
    sd = np.array([*SHAPE_SD, rule.centre_sd, rule.batch_sd, BEND_SD, rule.rank_sd, rule.samples_sd, *shifts])
    mean = np.zeros(len(sd))
    mean[: len(SHAPE)] = SHAPE_MEAN
    return Prior(mean, sd)


def features(points: Points, num_methods: int, num_choices: int, num_settings: int) -> Floats:
    """Return [N, D]: how each parameter moves each point's optimum."""
    b = points.batch
    common = np.stack([np.ones_like(b), b, b * b, points.rank, points.samples], axis=1)
    shape = np.zeros((len(points), len(SHAPE)))
    method = one_hot(points.method, _shifts(num_methods))
    choice = one_hot(points.choice, _own(num_choices, num_methods))
    setting = one_hot(points.setting, _shifts(num_settings))
    return np.concatenate([shape, common, method, choice, setting], axis=1)


def optimum(theta_SD: Floats, points: Points, features_ND: Floats) -> Floats:
    """Return [S, N]: log2 of the optimal learning rate at each point."""
    return points.expected + theta_SD @ features_ND.T


def depth(theta_SD: Floats, points: Points, features_ND: Floats) -> Floats:
    """Return [S, N]: by how much the scaled loss lies above the valley's bottom."""
    u = np.minimum(points.rate - optimum(theta_SD, points, features_ND), STEEPEST)
    low, high = np.exp(theta_SD[:, 0:1]), np.exp(theta_SD[:, 1:2])
    below = 2 * low * WIDTH**2 * (np.sqrt(1 + (u / WIDTH) ** 2) - 1)
    return np.where(u < 0, below, high * u * u)


def divergence_logit(theta_SD: Floats, points: Points, features_ND: Floats) -> Floats:
    """Return [S, N]: the logit of the probability that a run diverges."""
    u = points.rate - optimum(theta_SD, points, features_ND)
    return (u - np.exp(theta_SD[:, 2:3])) / SOFT


def one_hot(index: Ints, number: int) -> Floats:
    """Return [N, number]; no column where the number is 0."""
    return (index[:, None] == np.arange(number)).astype(np.float64)


def _shifts(number: int) -> int:
    """Return how many shifts there are: one kind has none of its own."""
    return number if number > 1 else 0


def _own(num_choices: int, num_methods: int) -> int:
    return num_choices if num_choices > num_methods else 0
