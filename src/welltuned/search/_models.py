"""The two models of a guided search, each conditioned on the values: the valley and the plain process. Pure.

The logarithm of a validation loss, scaled, is a Gaussian process (`_process.py`) plus seed noise; the valley model adds
the depth of `_valley.py`, whose parameters have a posterior of their own, and reads diverged runs as "the rate was too
high". The plain process knows neither valley nor prior, and reads them as a little above the worst. Seed noise and the
size of the residual are those of the highest evidence. Each is weighed by how it predicts every value from the others.
"""

import dataclasses
import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from welltuned.search import _mode, _process, _valley
from welltuned.search._options import Floats, Points
from welltuned.search._process import Conditioned, Kernel
from welltuned.search._values import Values

NOISES = (0.004, 0.01, 0.03, 0.1, 0.3)  # seed noise in scaled losses
LIKELY_NOISE, NOISE_SD = np.log(0.03), 1.2  # its prior, of its logarithm; assumed
AMPLITUDES = (0.03, 0.1, 0.3)  # of the valley's residual
PLAIN = tuple(Kernel(amplitude, length) for amplitude in (0.5, 1.5) for length in (0.75, 1.5))
ABOVE, ABOVE_SD = 0.5, 0.5  # of a diverged run above the worst, to the plain process; assumed
STARTS = (-1.5, -0.75, 0.0, 0.75, 1.5)  # of the centre, in its standard deviations
WIDENINGS = (1.0, 2.0, 4.0)  # of the prior of the optimum
CONFLICT = 2.0  # standard deviations from its prior beyond which a parameter contradicts it; assumed

Sizes = tuple[int, int, int]  # methods, choices, other settings


@dataclass(frozen=True)
class Valley:
    """The valley model at its mode theta [D], with the lower Cholesky factor of the covariance of its curvature."""

    values: Values
    prior: _valley.Prior
    sizes: Sizes
    process: Conditioned
    noise: float
    theta: Floats
    factor: Floats
    widened: float = 1.0

    def depth(self, theta_SD: Floats, at: Points) -> Floats:
        """Return [S, C]: the scaled depth of some points."""
        return _valley.depth(theta_SD, at, _valley.features(at, *self.sizes))

    @functools.cached_property
    def known(self) -> tuple[tuple[Points, Floats, float], ...]:
        """Return the scored points and those that were too high, with their features and the sign of divergence."""
        pairs = ((self.values.scored, 1.0), (self.values.high, -1.0))
        return tuple((points, _valley.features(points, *self.sizes), sign) for points, sign in pairs)

    def missed(self, theta_SD: Floats) -> Floats:
        """Return [S, N]: what the depth leaves of the values."""
        points, features, _ = self.known[0]
        return self.values.value_N - _valley.depth(theta_SD, points, features)

    def residuals(self, theta_SD: Floats) -> Floats:
        """Return [S, R]: residuals whose half sum of squares is the negative log posterior but for a constant."""
        parts = [(theta_SD - self.prior.mean) / self.prior.sd, self.process.white(self.missed(theta_SD))]
        for points, features, sign in self.known:
            logit = _valley.divergence_logit(theta_SD, points, features)
            parts.append(np.sqrt(2 * np.logaddexp(0.0, sign * logit)))
        return np.concatenate(parts, axis=1)

    def draws(self, number: int, rng: np.random.Generator) -> Floats:
        """Return draws [number, D] of the parameters."""
        return _mode.draws(self.residuals, self.theta, self.factor, number, rng)

    def linearised(self) -> tuple[Floats, Floats]:
        """Return what the values' linearised prior predicts wrongly, and its covariance without errors and residual."""
        one = self.theta[None]
        slopes = _mode.slopes(self.missed, one, self.missed(one))[0]
        miss = self.missed(one)[0] - slopes @ (self.theta - self.prior.mean)
        return miss, (slopes * self.prior.sd**2) @ slopes.T


def valley(values: Values, prior: _valley.Prior, sizes: Sizes) -> Valley:
    """Fit the valley model; its prior of where the optimum lies is widened while the results contradict it."""
    place = np.arange(len(prior.sd)) >= len(_valley.SHAPE)
    found = _valley_within(values, prior, sizes)
    for widened in WIDENINGS[1:]:
        if np.abs((found.theta - found.prior.mean) / found.prior.sd)[place].max() <= CONFLICT:
            break
        wider = dataclasses.replace(prior, sd=np.where(place, widened, 1.0) * prior.sd)
        found = dataclasses.replace(_valley_within(values, wider, sizes), widened=widened)
    return found


def _valley_within(values: Values, prior: _valley.Prior, sizes: Sizes) -> Valley:
    starts = prior.mean + np.outer(STARTS, np.where(np.arange(len(prior.sd)) == len(_valley.SHAPE), prior.sd, 0.0))
    found = _at_mode(values, prior, sizes, Kernel(AMPLITUDES[1]), NOISES[2], starts)
    kernel, noise = _likeliest(values, [Kernel(amplitude) for amplitude in AMPLITUDES], *found.linearised())
    return _at_mode(values, prior, sizes, kernel, noise, found.theta[None])


def _at_mode(
    values: Values, prior: _valley.Prior, sizes: Sizes, kernel: Kernel, noise: float, starts_KD: Floats
) -> Valley:
    process = _process.condition(kernel, values.scored, values.variance(noise))
    found = Valley(values, prior, sizes, process, noise, prior.mean, np.diag(prior.sd))
    theta, factor = _mode.mode(found.residuals, starts_KD)
    return dataclasses.replace(found, theta=theta, factor=factor)


def valley_score(found: Valley) -> float:
    """Return the sum of the leave-one-out log densities of the valley model, linearised at its mode."""
    miss, extra = found.linearised()
    return _score(found.values, found.process.kernel, found.noise, miss, extra)


@dataclass(frozen=True)
class Plain:
    """The plain process, conditioned on the values and on what diverged runs stand for."""

    process: Conditioned
    value_M: Floats
    score: float  # sum of the leave-one-out log densities of the scored values


def plain(values: Values) -> Plain:
    """Fit the plain process."""
    zero = np.zeros((len(values.value_N), len(values.value_N)))
    kernel, noise = _likeliest(values, PLAIN, values.value_N, zero)
    worst = values.value_N.max(initial=0.0) + ABOVE
    value = np.concatenate([values.value_N, np.full(len(values.high), worst)])
    variance = np.concatenate([values.variance(noise), np.full(len(values.high), ABOVE_SD**2)])
    process = _process.condition(kernel, Points.join([values.scored, values.high]), variance)
    return Plain(process, value, _score(values, kernel, noise, values.value_N, zero))


def _likeliest(values: Values, kernels: Sequence[Kernel], miss: Floats, extra: Floats) -> tuple[Kernel, float]:
    """Return the kernel and seed noise of the highest evidence, the noise's prior included."""

    def evidence(kernel: Kernel, noise: float) -> float:
        variance = np.diag(values.variance(noise))
        covariance = kernel.between(values.scored, values.scored) + extra + variance
        sign, log_determinant = np.linalg.slogdet(covariance)
        fit = miss @ np.linalg.solve(covariance, miss)
        prior = -0.5 * ((np.log(noise) - LIKELY_NOISE) / NOISE_SD) ** 2
        return float(-0.5 * (fit + log_determinant) + prior) if sign > 0 else -np.inf

    return max(itertools.product(kernels, NOISES), key=lambda pair: evidence(*pair))


def _score(values: Values, kernel: Kernel, noise: float, miss: Floats, extra: Floats) -> float:
    covariance = kernel.between(values.scored, values.scored) + extra + np.diag(values.variance(noise))
    return float(_process.leave_one_out(covariance, miss).sum())
