"""The parts of guided search against slow references: conditioning, leave-one-out, draws, gains, and the valley."""

import numpy as np
import pytest
from scipy import stats

from welltuned.search import _fidelity, _gain, _mode, _process, _valley
from welltuned.search._options import Points
from welltuned.search._prior import Rule


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def points(number: int, seed: int = 0, **fixed) -> Points:
    rng = generator(seed)
    rows = {
        "choice": rng.integers(0, 2, number), "method": rng.integers(0, 2, number), "setting": np.zeros(number, int),
        "rate": rng.uniform(-12, -4, number), "batch": rng.uniform(-2, 2, number), "rank": rng.uniform(-1, 1, number),
        "samples": rng.uniform(-4, 0, number), "share": rng.choice([-4.0, -2.0, 0.0], number),
        "expected": np.full(number, -8.0),
    }  # fmt: skip
    return Points(**(rows | {name: np.asarray(value) for name, value in fixed.items()}))


def test_conditioning_equals_the_normal_distributions_formulas():
    """Mean and covariance of 40,000 draws against the textbook's, with inverses written out."""
    kernel, seen, at = _process.Kernel(0.3), points(12), points(3, seed=1)
    variance, value = np.full(12, 0.02), generator(2).standard_normal(12)
    process = _process.condition(kernel, seen, variance)
    normal = generator(3).standard_normal((40_000, 3))
    drawn = process.draw(at, np.broadcast_to(value, (40_000, 12)), normal)
    inverse = np.linalg.inv(kernel.between(seen, seen) + np.diag(variance))
    cross = kernel.between(at, seen)
    covariance = kernel.between(at, at) - cross @ inverse @ cross.T
    np.testing.assert_allclose(drawn.mean(0), cross @ inverse @ value, atol=5 * np.sqrt(covariance.max() / 40_000))
    np.testing.assert_allclose(np.cov(drawn.T), covariance, atol=0.05 * covariance.max())


def test_whitened_residuals_have_the_values_density():
    kernel, seen, value = _process.Kernel(0.3), points(8), generator(2).standard_normal((2, 8))
    covariance = kernel.between(seen, seen) + 0.1 * np.eye(8)
    white = _process.condition(kernel, seen, np.full(8, 0.1)).white(value)
    density = stats.multivariate_normal(np.zeros(8), covariance).logpdf(value)
    np.testing.assert_allclose(-0.5 * np.diff((white**2).sum(1)), np.diff(density), rtol=1e-4)


def test_leave_one_out_equals_leaving_one_out():
    seen, value = points(7), generator(4).standard_normal(7)
    covariance = _process.Kernel(0.5).between(seen, seen) + 0.05 * np.eye(7)
    found = []
    for place in range(7):
        rest = np.arange(7) != place
        weights = np.linalg.solve(covariance[np.ix_(rest, rest)], covariance[rest, place])
        variance = covariance[place, place] - weights @ covariance[rest, place]
        found.append(stats.norm(weights @ value[rest], np.sqrt(variance)).logpdf(value[place]))
    np.testing.assert_allclose(_process.leave_one_out(covariance, value), found, rtol=1e-8)


def test_covariances_are_positive_definite():
    kernel, seen = _process.Kernel(1.5, 0.75), points(60)
    assert np.linalg.eigvalsh(kernel.between(seen, seen)).min() > -1e-9


def skewed(theta_KD: np.ndarray) -> np.ndarray:
    """Residuals of a banana: theta0 ~ N(0, 1), theta1 | theta0 ~ N(theta0^2 / 2, 1/4)."""
    return np.stack([theta_KD[:, 0], 2 * (theta_KD[:, 1] - theta_KD[:, 0] ** 2 / 2)], axis=1)


def test_the_mode_of_a_banana_is_found_from_afar():
    theta, factor = _mode.mode(skewed, np.array([[4.0, -3.0], [-5.0, 5.0]]))
    np.testing.assert_allclose(theta, [0, 0], atol=1e-4)
    np.testing.assert_allclose(factor @ factor.T, [[1, 0], [0, 0.25]], atol=1e-3)


def test_long_chains_have_the_moments_of_a_banana_although_it_is_not_normal(monkeypatch):
    """E theta1 = 1/2, Var theta1 = 1/4 + 1/2; the normal approximation at the mode has 0 and 1/4."""
    monkeypatch.setattr(_mode, "STEPS", 200)
    theta, factor = _mode.mode(skewed, np.zeros((1, 2)))
    drawn = _mode.draws(skewed, theta, factor, 6_000, generator(5))
    assert drawn[:, 0].mean() == pytest.approx(0, abs=0.05) and drawn[:, 0].var() == pytest.approx(1, abs=0.1)
    assert drawn[:, 1].mean() == pytest.approx(0.5, abs=0.05) and drawn[:, 1].var() == pytest.approx(0.75, abs=0.12)


def test_the_gain_equals_the_closed_form_of_two_candidates():
    """One is 0, the other N(d, s^2) and measured with noise t: v phi(d/v) - d Phi(-d/v), v = s^2 / sqrt(s^2 + t^2)."""
    d, s, t = 0.3, 0.5, 0.4
    drawn = np.stack([np.zeros(100_000), d + s * generator(6).standard_normal(100_000)], axis=1)
    moved = s**2 / np.sqrt(s**2 + t**2)
    expected = moved * stats.norm.pdf(d / moved) - d * stats.norm.cdf(-d / moved)
    known, unknown = _gain.gains(drawn, 2, t)
    assert known == pytest.approx(0, abs=1e-9) and unknown == pytest.approx(expected, rel=0.05)


def test_a_probe_gains_by_its_correlation_only():
    rng = generator(7)
    full = rng.standard_normal((4000, 2))
    told, deaf = full[:, 1] + 0.1 * rng.standard_normal(4000), rng.standard_normal(4000)
    gains = _gain.gains(np.column_stack([full, told, deaf]), 2, 0.1)
    assert gains[1] > 0.3 and gains[2] > 0.8 * gains[1] and gains[3] < 0.02


def test_an_imagined_run_takes_away_what_it_would_tell():
    """The draws' variance afterwards is that of the normal posterior: s^2 t^2 / (s^2 + t^2)."""
    drawn = 2 * generator(8).standard_normal((50_000, 1))
    after = _gain.imagined(drawn, 0, 1.0, generator(9))
    assert after.var() == pytest.approx(4 * 1 / 5, rel=0.03) and after.mean() == pytest.approx(drawn.mean(), abs=0.02)


def test_the_valley_is_lowest_at_its_optimum_and_steeper_above():
    rule = Rule({}, 0.0, 1.0, 0.3, 0.3, 0.2)
    prior = _valley.prior(rule, 1, 1, 1)
    at = points(17, rate=np.arange(-16.0, 1.0), batch=np.zeros(17), rank=np.zeros(17), samples=np.zeros(17))
    depth = _valley.depth(prior.mean[None], at, _valley.features(at, 1, 1, 1))[0]
    assert depth.argmin() == 8 and depth[8] == 0
    assert (np.diff(depth[:9]) < 0).all() and (np.diff(depth[8:]) > 0).all() and depth[10] > depth[6]


def test_each_parameter_moves_the_optimum_as_said():
    rule = Rule({}, 0.0, 1.0, 0.3, 0.3, 0.2)
    at = points(5, batch=np.arange(5.0), method=np.array([0, 1, 0, 1, 0]), choice=np.array([0, 1, 0, 1, 0]))
    sizes = (2, 2, 1)
    theta = _valley.prior(rule, *sizes).mean.copy()
    theta[len(_valley.SHAPE) :] = [1.0, 0.5, 0.0, 0.0, -0.2, 0.0, 2.0]  # centre, s, bend, rho, h; two methods
    found = _valley.optimum(theta[None], at, _valley.features(at, *sizes))[0]
    np.testing.assert_allclose(found, -8 + 1 + 0.5 * np.arange(5) - 0.2 * at.samples + 2.0 * (at.method == 1))


@pytest.mark.parametrize(("agree", "number", "drops"), [(True, 12, False), (False, 12, True), (False, 5, False)])
def test_a_share_is_dropped_for_a_clear_disagreement_only(agree, number, drops):
    full = np.arange(number, dtype=float)
    probe = full + 0.1 if agree else generator(1).permutation(full)
    assert _fidelity._disagrees([np.stack([probe, full], axis=1)]) == drops
