"""Planted valleys for the tests of guided search: losses of a form that is not the model's, with noise and divergence.

log loss = valley(log2 lr - log2 eta*) + a parabola in log2 batch size + smooth waves of each method; the optimum moves
with method, batch size, rank and samples. Above an edge, runs diverge and count with the base model's loss.
"""

import math
from dataclasses import dataclass

import numpy as np

from small_study import plan_of, result_of
from welltuned import rng
from welltuned.costs import flops
from welltuned.plan import Plan
from welltuned.records import Config, Result, Status, Trial
from welltuned.search._space import Choice
from welltuned.spec import Spec

BASE_NLL = 3.0
LOWEST_NLL = 0.5
MOST = 16384  # training rows
WAVES = 8
STUDY = """
name = "planted"
[model]
base = "abacus-small"
[task]
task = "abacus"
num_train = {num_train}
num_validation = 256
num_test = 64
[axes]
method = {methods}
batch_size = {batches}
learning_rate = {rates}
rank = {ranks}
[search]
search = "{search}"
fresh_seeds = 1
{settings}
"""


def plan(
    methods: tuple[str, ...] = ("lora",),
    settings: str = "budget = 16",
    low: float = -12,
    high: float = -4,
    batches: tuple[int, ...] = (4, 8, 16, 32, 64, 128),
    ranks: tuple[int, ...] = (8,),
    num_train: int = MOST,
    search: str = "guided",
) -> Plan:
    """Return a plan whose learning rates are the powers of 2 from 2^low to 2^high."""
    rates = [float(f"{2**exponent:.6g}") for exponent in np.arange(low, high + 0.5)]
    listed = "[" + ", ".join(f'"{name}"' for name in methods) + "]"
    text = STUDY.format(
        methods=listed, batches=list(batches), rates=rates, ranks=list(ranks), settings=settings, num_train=num_train,
        search=search,
    )  # fmt: skip
    return plan_of(Spec.parse(text))


@dataclass(frozen=True)
class Surface:
    """A planted surface; `centre` is log2 of LoRA's best rate at batch size 16 and rank 8 with all samples."""

    seed: int
    centre: float = -7.5
    shifts: tuple[tuple[str, float], ...] = ()  # of methods, octaves
    noise: float = 0.004  # sd of a seed, relative
    edge: float = 2.5  # octaves above the optimum where runs diverge
    best_batch: float = 4.5  # log2
    wave: float = 0.005  # relative

    def log_loss(self, config: Config) -> float:
        """Return the log loss without noise, the base model's where the run diverges."""
        u = self.above(config)
        if u > self.edge:
            return math.log(BASE_NLL)
        b, n = math.log2(config.batch_size), math.log2(flops.num_samples(config) / MOST)
        valley = 0.02 * abs(u) ** 1.7 if u < 0 else 0.06 * (2**u - 1 - u / 2)
        level = math.log(LOWEST_NLL) + 0.008 * (b - self.best_batch - 0.4 * n) ** 2 - 0.1 * n
        return min(math.log(BASE_NLL), level + valley + self._waves(config))

    def above(self, config: Config) -> float:
        """Return by how many octaves the learning rate lies above the optimum."""
        b, n = math.log2(config.batch_size), math.log2(flops.num_samples(config) / MOST)
        moved = 0.45 * (min(b, 6) - 4) - 0.5 * math.log2(max(1, config.rank) / 8) - 0.2 * n
        return math.log2(config.learning_rate) - self.centre - dict(self.shifts).get(config.method, 0.0) - moved

    def answer(self, trial: Trial) -> Result:
        """Return a trial's result, its noise from its own configuration alone."""
        generator = rng.stream(self.seed, "planted noise", trial.id)
        log_loss = self.log_loss(trial.config)
        if log_loss >= math.log(BASE_NLL):
            return result_of(trial, BASE_NLL, Status.DIVERGED, base_validation_nll=BASE_NLL)
        noisy = math.exp(log_loss + self.noise * generator.standard_normal())
        return result_of(trial, noisy, base_validation_nll=BASE_NLL)

    def regret(self, choice: Choice, config: Config) -> float:
        """Return a configuration's log loss above the lowest of a choice's candidates."""
        return self.log_loss(config) - min(self.log_loss(candidate.config) for candidate in choice.candidates)

    def _waves(self, config: Config) -> float:
        generator = rng.stream(self.seed, "planted waves", config.method)
        frequency = generator.uniform(0.2, 0.8, size=(WAVES, 3))
        phase = generator.uniform(0, 2 * np.pi, size=WAVES)
        place = np.log2([config.learning_rate, config.batch_size, max(1, config.rank)])
        return float(self.wave * math.sqrt(2 / WAVES) * np.sin(frequency @ place + phase).sum())
