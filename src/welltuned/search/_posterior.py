"""What a study's results say of all its options: two models, averaged by how each predicts the unseen. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from welltuned.search import _models, _valley, _values
from welltuned.search._options import Field, Floats, Points, Seen
from welltuned.search._prior import Rule

DRAWS = 384  # so that a probability has a Monte Carlo error of .026 at most; assumed
VALLEY = 0.75  # weight of the valley model before anything was seen; assumed
BOUNDS = (0.05, 0.95)  # of its weight: neither model is ever trusted alone; assumed


@dataclass(frozen=True)
class Posterior:
    """Both models; of the DRAWS draws the first are the valley's, as many as its weight gives it."""

    valley: _models.Valley
    plain: _models.Plain
    theta_SD: Floats
    weight: float

    @property
    def noise(self) -> float:
        """Return the sd of a seed, in log nats."""
        return self.valley.values.scale * self.valley.noise

    def draw(self, at: Points, rng: np.random.Generator) -> Floats:
        """Return draws [DRAWS, C] of the log loss of some points, without seed noise."""
        normal = rng.standard_normal((DRAWS, len(at)))
        number = len(self.theta_SD)
        first = self.valley.process.draw(at, self.valley.missed(self.theta_SD), normal[:number])
        rest = np.broadcast_to(self.plain.value_M, (DRAWS - number, len(self.plain.value_M)))
        second = self.plain.process.draw(at, rest, normal[number:])
        values = self.valley.values
        scaled = np.concatenate([first + self.valley.depth(self.theta_SD, at), second])
        return values.location + values.scale * np.minimum(scaled, values.ceiling)

    def optimum(self, at: Points) -> Floats:
        """Return the valley's draws [S, C] of log2 of the optimal learning rate where some points lie."""
        return _valley.optimum(self.theta_SD, at, _valley.features(at, *self.valley.sizes))


def fit(found: Sequence[Field], known: Sequence[Seen], rule: Rule, rng: np.random.Generator) -> Posterior:
    """Condition both models on what was seen."""
    every = Points.join([field.points for field in found])
    sizes = (int(every.method.max()) + 1, int(every.choice.max()) + 1, int(every.setting.max()) + 1)
    values = _values.of(found, known)
    valley = _models.valley(values, _valley.prior(rule, *sizes), sizes)
    plain = _models.plain(values)
    weight = _weight(_models.valley_score(valley) - plain.score)
    return Posterior(valley, plain, valley.draws(round(weight * DRAWS), rng), weight)


def _weight(ahead: float) -> float:
    """Return the valley model's weight, from by how many nats it predicts better."""
    odds = VALLEY / (1 - VALLEY) * np.exp(np.clip(ahead, -20, 20))
    return float(np.clip(odds / (1 + odds), *BOUNDS))
