"""The critical batch size: where 20 % more tokens are needed than if doubling the batch still halved the steps.

Estimator (Zhang et al. 2025, "How does critical batch size scale in pre-training?", and their code, chinchilla.ipynb):
steps to a goal Y(B) = a + b / B, fitted by least squares on log Y. Linear scaling is anchored at B_0: had it gone on
from there, B sequences a step would need the tokens of B_0, a B_0 + b. The critical size has (1 + overhead) of these:
a B + b = (1 + overhead) (a B_0 + b), hence B_crit = (1 + overhead) B_0 + overhead b / a. The authors' numbers are those
with B_0 = 256 (tests/test_critical_batch.py reproduces all five).
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from welltuned.analysis.estimate import Estimate, t_interval
from welltuned.analysis.grid import Place, means
from welltuned.analysis.runs import Table

OVERHEAD = 0.2  # Zhang et al. 2025
ANCHOR = 256  # sequences; theirs, found from their numbers
FEWEST = 3  # batch sizes, for two parameters


@dataclass(frozen=True)
class CriticalBatch:
    """The fit of one curve."""

    floor_steps: float  # a: steps that no batch size goes under
    sequences: float  # b: sequences that small batches need in all
    critical: Estimate  # B_crit, with the delta method's interval from the scatter about the fit
    anchor: float  # B_0
    reached: bool  # within the batch sizes tried


def critical_batches(table: Table, anchor: float = ANCHOR) -> dict[Place, CriticalBatch]:
    """Fit every curve of a table whose metric is steps to a goal: the fewest over learning rates at each batch size."""
    groups: defaultdict[Place, dict[int, float]] = defaultdict(dict)
    for member in means(table):
        batch = member.place.batch_size
        if batch is not None and not member.num_diverged:
            curve = groups[member.place.without("learning_rate", "batch_size")]
            curve[batch] = min(member.value, curve.get(batch, member.value))
    found: dict[Place, CriticalBatch] = {}
    for place, curve in groups.items():
        if len(curve) >= FEWEST:
            batches = sorted(curve)
            found[place] = critical_batch(batches, [curve[batch] for batch in batches], anchor)
    return found


def critical_batch(batches: Sequence[float], steps: Sequence[float], anchor: float = ANCHOR) -> CriticalBatch:
    """Fit steps to a goal against batch size in sequences."""
    from scipy.optimize import least_squares

    x, y = np.asarray(batches, dtype=float), np.asarray(steps, dtype=float)
    if len(x) < FEWEST or len(x) != len(y) or (x <= 0).any() or (y <= 0).any():
        raise ValueError(f"got {len(x)} batch sizes and {len(y)} steps, expected as many, positive, {FEWEST} or more")

    def residuals(logs: np.ndarray) -> np.ndarray:
        return np.log(np.exp(logs[0]) + np.exp(logs[1]) / x) - np.log(y)

    start = np.array([np.log(y.min()), np.log(y[0] * x[0])])
    fit = least_squares(residuals, start, xtol=1e-12, ftol=1e-12, gtol=1e-12)
    a, b = np.exp(fit.x)
    critical = (1 + OVERHEAD) * anchor + OVERHEAD * b / a
    dof = len(x) - 2
    variance = 2 * fit.cost / dof * np.linalg.pinv(fit.jac.T @ fit.jac)
    gradient = OVERHEAD * b / a * np.array([-1.0, 1.0])
    error = float(np.sqrt(gradient @ variance @ gradient))
    basis = f"scatter about the fit, {dof} degrees of freedom"
    estimate = t_interval(float(critical), error, dof, basis)
    return CriticalBatch(float(a), float(b), estimate, anchor, bool(x.min() <= critical <= x.max()))
