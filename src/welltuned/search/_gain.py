"""What a trial is expected to be worth: the knowledge gradient, from draws of the posterior. Pure.

Before a trial, the candidate with the lowest expected loss would be chosen; after it, perhaps another one with a lower
expectation. The expected difference is the trial's gain (Frazier, Powell and Dayanik 2009), for full trials and for
probes alike: a probe's draws are correlated with those of the full trials it informs about. Legend: S draws, A options,
C of them candidates (the first C).
"""

import numpy as np

from welltuned.search._options import Floats

# Nodes and weights of E f(Z), Z standard normal: the 11-point Gauss-Hermite rule for the weight exp(-z^2 / 2).
NODES, _RAW = np.polynomial.hermite_e.hermegauss(11)
WEIGHTS = _RAW / _RAW.sum()
LEADING = 48  # candidates with the lowest expected loss or most often the best draw, among which the best is sought


def gains(draws_SA: Floats, num_candidates: int, noise: float) -> Floats:
    """Return [A]: by how much one more run of each option is expected to lower the best candidate's expected loss.

    A correlation of S draws is off by 1 / sqrt(S): its square is lowered by 1 / S, or chance would look like knowledge.
    """
    number = len(draws_SA)
    leading = _leading(draws_SA[:, :num_candidates])
    mean = draws_SA.mean(0)
    centred = draws_SA - mean
    own = (centred**2).mean(0)
    covariance = centred.T @ centred[:, leading] / number  # [A, L]
    explained = covariance**2 / (own + noise**2)[:, None]
    explained = np.maximum(explained - own[leading] / number, 0.0)
    slope = np.sign(covariance) * np.sqrt(explained)
    after = (mean[leading][:, None] + slope[:, :, None] * NODES).min(axis=1) @ WEIGHTS  # [A]
    return np.maximum(mean[leading].min() - after, 0.0)


def imagined(draws_SA: Floats, option: int, noise: float, rng: np.random.Generator) -> Floats:
    """Return the draws after a run of an option that came out as expected (an ensemble Kalman step, Evensen 1994)."""
    mean = draws_SA.mean(0)
    centred = draws_SA - mean
    gain = centred.T @ centred[:, option] / len(draws_SA)
    gain = gain / (gain[option] + noise**2)
    missed = mean[option] - draws_SA[:, option] - noise * rng.standard_normal(len(draws_SA))
    return draws_SA + np.outer(missed, gain)


def _leading(draws_SC: Floats) -> np.ndarray:
    wins = np.bincount(draws_SC.argmin(1), minlength=draws_SC.shape[1])
    often = np.argsort(-wins, kind="stable")[:LEADING]
    return np.union1d(np.argsort(draws_SC.mean(0), kind="stable")[: LEADING // 2], often[wins[often] > 0])
