"""Learning-rate schedules as pure functions of the step, with the semantics of transformers' `get_scheduler`."""

import math

from welltuned.records import Config


def num_warmup_steps(config: Config, num_steps: int) -> int:
    """Return the warm-up length: `warmup_steps` where set, else ceil(warmup_ratio * num_steps) as in transformers."""
    return config.warmup_steps or math.ceil(config.warmup_ratio * num_steps)


def learning_rate(config: Config, step: int, num_steps: int) -> float:
    """Return the learning rate of optimizer step `step` (from 0) of `num_steps`."""
    return config.learning_rate * _factor(config, step, num_steps)


def _factor(config: Config, step: int, num_steps: int) -> float:
    warmup = num_warmup_steps(config, num_steps)
    if step < warmup:
        return step / max(1, warmup)
    if config.lr_scheduler_type == "constant":
        return 1.0
    if config.lr_scheduler_type == "linear":
        return max(0.0, (num_steps - step) / max(1, num_steps - warmup))
    progress = (step - warmup) / max(1, num_steps - warmup)
    cosine = 0.5 * (1 + math.cos(math.pi * progress))
    floor = config.lr_floor if config.lr_scheduler_type == "cosine_with_floor" else 0.0
    return cosine * (1 - floor) + floor
