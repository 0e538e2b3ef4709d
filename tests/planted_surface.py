"""An invented recorded surface with known optima, for the tests of replay: no training, no files."""

import math

from small_study import edited, plan_of, result_of
from welltuned.records import Config, Point, Result, Role, Status, Trial
from welltuned.spec import Spec

RATES = [1e-3 * 2.0**k for k in range(9)]
BATCHES, SIZES = [4, 8, 16], [128, 512]
BASE_NLL = 2.0
SEED_SD = 0.01  # of the log loss


def optimum(batch_size: int) -> float:
    """Return the best learning rate: 8e-3 at batch 4, a factor of 1.4 more at each doubling."""
    return 8e-3 * math.sqrt(batch_size / 4)


def log_loss(config: Config) -> float:
    """Return the noiseless log loss: a parabola in log2 of the learning rate, and less with more rows."""
    octaves = math.log2(config.learning_rate / optimum(config.batch_size))
    return math.log(0.5) + 0.02 * octaves**2 - 0.2 * math.log2(config.num_train / 512) + 0.002 * config.batch_size


def deviation(seed: int) -> float:
    """Return the seed's part of the log loss; the three add up to 0."""
    return SEED_SD * (1, 0, -1)[seed]


def diverges(config: Config) -> bool:
    return config.learning_rate > 0.2


def result(config: Config) -> Result:
    trial = Trial(config, Role.SELECT)
    facts = {"base_validation_nll": BASE_NLL, "num_tokens": 60 * config.num_train, "num_pack": 9}
    facts["curve"] = (Point(trial.id, 0, 0, 0, 0.0, None, BASE_NLL),)
    if diverges(config):
        return result_of(trial, BASE_NLL, Status.DIVERGED, **facts)
    return result_of(trial, math.exp(log_loss(config) + deviation(config.init_seed)), **facts)


def plan(num_train=512, method=("lora",), **search):
    """Return a plan whose candidates are the surface's at a number of rows."""
    settings = {"seeds": 1, "fresh_seeds": 1} | search
    axes = {"method": list(method), "batch_size": BATCHES, "learning_rate": RATES}
    train = {"learning_rate": None, "num_evaluations": 1}
    tree = edited(axes=axes, task={"num_train": num_train}, train=train, search=settings)
    return plan_of(Spec.model_validate(tree))


def results(seeds=3, method=("lora",)) -> list[Result]:
    """Return the recorded trials: every cell on every seed."""
    plans = [plan(size, method, seeds=seeds) for size in SIZES]
    return [result(config) for made in plans for arm in made.arms for config in arm.configs]
