"""Gaussian processes over the options of a study: levels and smooth residuals, conditioning, and leave-one-out. Pure.

A covariance is linear (level, slopes and bends, partly shared by the choices and partly of each) plus a Matern 5/2 of
the distance in learning rate, batch size, rank and share, half of whose variance the choices share. Losses are scaled.
Rasmussen and Williams 2006: conditioning is eq. 2.23 and 2.24, evidence 2.30, leave-one-out 5.10 to 5.12.
"""

from dataclasses import dataclass

import numpy as np

from welltuned.search._options import Floats, Points

# Standard deviations in scaled losses (per octave where that applies) of level, batch size, its square, rank, its
# square, share and (batch size x share: fewer samples make smaller batches better); assumed.
SHARED_SD = np.array([1.0, 0.3, 0.1, 0.2, 0.05, 1.0, 0.1])
OWN_SD = np.array([0.7, 0.1, 0.03, 0.1, 0.03, 0.3, 0.03])  # of each choice; assumed
SETTING_SD = 0.5  # of each other setting's level; assumed
LENGTHS = np.array([2.0, 2.5, 2.5, 4.0])  # octaves of learning rate, batch size, rank, share; assumed
COMMON = 0.5  # of the residual's variance: what all choices, and all other settings, have in common; assumed
JITTER = 1e-7


@dataclass(frozen=True)
class Kernel:
    """A covariance function: the residual's standard deviation in scaled losses, and a factor of its first length."""

    amplitude: float
    length: float = 1.0

    def between(self, a: Points, b: Points) -> Floats:
        """Return the covariances [len(a), len(b)]."""
        same = a.choice[:, None] == b.choice
        alike = a.setting[:, None] == b.setting
        left, right = _terms(a), _terms(b)
        level = (left * SHARED_SD**2) @ right.T + same * ((left * OWN_SD**2) @ right.T) + alike * SETTING_SD**2
        common = (COMMON + (1 - COMMON) * same) * (COMMON + (1 - COMMON) * alike)
        return level + self.amplitude**2 * common * self._smooth(a, b)

    def _smooth(self, a: Points, b: Points) -> Floats:
        """Return the correlations by distance, Matern 5/2 (Rasmussen and Williams 2006, eq. 4.17)."""
        lengths = LENGTHS * np.array([self.length, 1, 1, 1])
        left, right = _place(a) / lengths, _place(b) / lengths
        squared = (left**2).sum(1)[:, None] + (right**2).sum(1) - 2 * left @ right.T
        scaled = np.sqrt(5 * np.maximum(squared, 0))
        return (1 + scaled + scaled**2 / 3) * np.exp(-scaled)


@dataclass(frozen=True)
class Conditioned:
    """A process that has seen N values with independent errors: what is needed to ask it something."""

    kernel: Kernel
    points: Points
    half: Floats  # inverse of the lower Cholesky factor of the values' covariance, errors included

    def white(self, residual_SN: Floats) -> Floats:
        """Return [S, N] residuals that are independent with variance 1."""
        return residual_SN @ self.half.T

    def draw(self, at: Points, residual_SN: Floats, normal_SC: Floats) -> Floats:
        """Return draws [S, C] of the process at some points, given each row of residuals."""
        cross = self.kernel.between(at, self.points)
        gain = cross @ self.half.T @ self.half
        covariance = self.kernel.between(at, at) - gain @ cross.T
        root = np.linalg.cholesky(covariance + _jitter(covariance))
        return residual_SN @ gain.T + normal_SC @ root.T


def condition(kernel: Kernel, points: Points, variance_N: Floats) -> Conditioned:
    """Return the process that saw values at these points, whose errors have these variances."""
    covariance = kernel.between(points, points) + np.diag(variance_N)
    factor = np.linalg.cholesky(covariance + _jitter(covariance))
    return Conditioned(kernel, points, np.asarray(np.linalg.inv(factor), dtype=np.float64))


def leave_one_out(covariance: Floats, residual_N: Floats) -> Floats:
    """Return the log density of each value given all others, of a normal distribution with mean 0."""
    inverse = np.linalg.inv(covariance)
    variance = 1 / np.diag(inverse)
    miss = (inverse @ residual_N) * variance
    return -0.5 * (np.log(2 * np.pi * variance) + miss**2 / variance)


def _jitter(covariance: Floats) -> Floats:
    size = len(covariance)
    return JITTER * (np.trace(covariance) / size + 1) * np.eye(size) if size else np.zeros((0, 0))


def _terms(points: Points) -> Floats:
    b, r, s = points.batch, points.rank, points.share
    return np.stack([np.ones_like(b), b, b * b, r, r * r, s, b * s], axis=1)


def _place(points: Points) -> Floats:
    return np.stack([points.rate, points.batch, points.rank, points.share], axis=1)
