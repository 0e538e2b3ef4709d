"""The mode of a posterior, its curvature there, and draws around it. Pure; numpy only.

A posterior is given as residuals R(theta) whose half sum of squares is its negative logarithm. The mode is found by
Levenberg-Marquardt from several starts at once; draws are made by generalised elliptical slice sampling (Nishihara,
Murray and Adams 2014) around the Student t with the mode's curvature, many short chains at once, so that the posterior
need not be normal. Legend: K starts or chains, D parameters, R residuals.
"""

from collections.abc import Callable

import numpy as np

from welltuned.search._options import Floats

Residuals = Callable[[Floats], Floats]  # [K, D] to [K, R]

STEP = 1e-5  # of the finite differences, in units of the prior's standard deviations, which are near 1
ITERATIONS = 30
FREEDOM = 5.0  # degrees of freedom of the sampler's Student t; assumed
STEPS = 12  # of each chain before its draw is kept: far from a normal posterior more would be needed; assumed
BRACKETS = 25  # shrinkings of a slice before a chain stays where it is


def mode(residuals: Residuals, starts_KD: Floats) -> tuple[Floats, Floats]:
    """Return the best mode [D] that was found, and the lower Cholesky factor of the covariance of its curvature."""
    theta = starts_KD.copy()
    damping = np.full(len(theta), 1e-2)
    value = residuals(theta)
    cost = _half_squares(value)
    for _ in range(ITERATIONS):
        jacobian = slopes(residuals, theta, value)
        normal = np.einsum("krd,kre->kde", jacobian, jacobian)
        gradient = np.einsum("krd,kr->kd", jacobian, value)
        scaled = normal + damping[:, None, None] * np.eye(theta.shape[1]) * np.einsum("kdd->kd", normal)[:, None, :]
        step: Floats = np.asarray(np.linalg.solve(scaled, gradient[:, :, None]), dtype=np.float64)[:, :, 0]
        proposal = theta - step
        there = residuals(proposal)
        lower = _half_squares(there)
        better = lower < cost
        gained = np.where(better, cost - lower, 0.0).max()
        theta, value = np.where(better[:, None], proposal, theta), np.where(better[:, None], there, value)
        cost = np.where(better, lower, cost)
        damping = np.clip(np.where(better, damping / 5, damping * 5), 1e-9, 1e9)
        if gained < 1e-6 and damping.min() > 1:
            break
    best = int(np.argmin(cost))
    jacobian = slopes(residuals, theta[best : best + 1], value[best : best + 1])[0]
    covariance: Floats = np.asarray(np.linalg.inv(jacobian.T @ jacobian), dtype=np.float64)
    return theta[best], np.asarray(np.linalg.cholesky((covariance + covariance.T) / 2), dtype=np.float64)


def _half_squares(value_KR: Floats) -> Floats:
    return np.asarray(0.5 * (value_KR**2).sum(1), dtype=np.float64)


def slopes(residuals: Residuals, theta_KD: Floats, value_KR: Floats) -> Floats:
    """Return [K, R, D], by forward differences."""
    number, size = theta_KD.shape
    moved = theta_KD[:, None, :] + STEP * np.eye(size)
    there = residuals(moved.reshape(number * size, size)).reshape(number, size, -1)
    return np.swapaxes(there - value_KR[:, None, :], 1, 2) / STEP


def draws(residuals: Residuals, centre_D: Floats, factor_DD: Floats, number: int, rng: np.random.Generator) -> Floats:
    """Return draws [number, D] of the posterior whose mode and curvature these are."""
    size = len(centre_D)
    inverse = np.linalg.inv(factor_DD)

    def distance(theta: Floats) -> Floats:
        return (((theta - centre_D) @ inverse.T) ** 2).sum(1)

    def log_ratio(theta: Floats) -> Floats:
        t = -0.5 * (FREEDOM + size) * np.log1p(distance(theta) / FREEDOM)
        return -0.5 * (residuals(theta) ** 2).sum(1) - t

    theta = centre_D + _student(number, size, rng) @ factor_DD.T
    level = log_ratio(theta)
    for _ in range(STEPS):
        scale = (FREEDOM + distance(theta)) / 2 / rng.gamma((size + FREEDOM) / 2, size=number)
        other = np.sqrt(scale)[:, None] * rng.standard_normal((number, size)) @ factor_DD.T
        theta, level = _slice(log_ratio, theta - centre_D, other, centre_D, level, rng)
    return theta


def _slice(
    log_ratio: Callable[[Floats], Floats],
    here: Floats,
    other: Floats,
    centre: Floats,
    level: Floats,
    rng: np.random.Generator,
) -> tuple[Floats, Floats]:
    """Move every chain to a point of its ellipse whose ratio lies above its random level (Murray et al. 2010)."""
    number = len(here)
    floor = level + np.log(rng.random(number))
    angle = rng.random(number) * 2 * np.pi
    low, high = angle - 2 * np.pi, angle.copy()
    result, reached = here + centre, level.copy()
    open_ = np.arange(number)
    for _ in range(BRACKETS):
        at = here[open_] * np.cos(angle[open_])[:, None] + other[open_] * np.sin(angle[open_])[:, None] + centre
        value = log_ratio(at)
        inside = value > floor[open_]
        result[open_[inside]], reached[open_[inside]] = at[inside], value[inside]
        open_ = open_[~inside]
        if not len(open_):
            break
        negative = angle[open_] < 0
        low[open_] = np.where(negative, angle[open_], low[open_])
        high[open_] = np.where(negative, high[open_], angle[open_])
        angle[open_] = low[open_] + (high[open_] - low[open_]) * rng.random(len(open_))
    return result, reached


def _student(number: int, size: int, rng: np.random.Generator) -> Floats:
    return rng.standard_normal((number, size)) * np.sqrt(FREEDOM / rng.chisquare(FREEDOM, size=(number, 1)))
