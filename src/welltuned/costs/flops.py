"""Floating-point operations of training and validating one configuration; what `plan` estimates times from.

Per token and weight, a forward pass is 2 operations, the gradient of the activations 2, the gradient of the weights 2
(Kaplan et al. 2020, arXiv 2001.08361, section 2.1). A frozen weight has no gradient of its own, so LoRA takes 4 per
base weight and 6 per adapter weight; full fine-tuning 6 for the weights it adapts. Frozen weights of a method's own,
such as VeRA's factors, count as the base's. The head acts at targets only.
Attention scores are left out (they grow with rows longer than a few hundred tokens), and so is the optimizer.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

from welltuned import plugins
from welltuned.records import Config, Site, Survey

FORWARD, FROZEN, TRAINED = 2, 4, 6  # operations per token and weight, Kaplan et al. 2020


@dataclass(frozen=True)
class Work:
    """What one trial takes: its length in optimizer steps, samples and real tokens, and its operations."""

    num_steps: int
    num_samples: int
    num_tokens: float
    train_flops: float
    validation_flops: float


def num_steps(config: Config) -> int:
    """Return the optimizer steps that a trial takes; the last, partial batch of an epoch is a step of its own."""
    return last_step(config) - config.start_step


def last_step(config: Config) -> int:
    """Return the optimizer steps of the whole course, of which a trial that goes on from an export is the rest."""
    per_epoch = -(-config.num_train // config.batch_size)
    return config.max_steps if config.max_steps is not None else per_epoch * config.num_train_epochs


def num_samples(config: Config) -> int:
    """Return the training rows that a trial sees, repetitions counted."""
    return _samples_until(config, last_step(config)) - _samples_until(config, config.start_step)


def _samples_until(config: Config, step: int) -> int:
    per_epoch = -(-config.num_train // config.batch_size)
    epochs, rest = divmod(step, per_epoch)
    return epochs * config.num_train + min(rest * config.batch_size, config.num_train)


def num_trainable(config: Config, survey: Survey) -> int:
    """Count the numbers that a trial trains, over all sites, or of the whole model."""
    if trains_whole(config):
        return survey.num_parameters
    return _num_trainable(config.method, ranks(config, survey), survey.sites)


def ranks(config: Config, survey: Survey) -> tuple[int, ...]:
    """Return the rank at every site, never above the full one: a plan refuses that elsewhere."""
    if not config.rank_pattern:
        return tuple(min(config.rank, site.num_out, site.num_in) for site in survey.sites)
    return tuple(min(config.wanted_rank_at(site.name), site.num_out, site.num_in) for site in survey.sites)


@functools.cache
def _num_trainable(method: str, ranks: tuple[int, ...], sites: tuple[Site, ...]) -> int:
    count: Callable[[int, int, int], int] = plugins.load("methods", method).num_trainable
    return sum(count(site.num_out, site.num_in, rank) for site, rank in zip(sites, ranks, strict=True))


def trains_whole(config: Config) -> bool:
    """Say whether a trial trains every weight of the model, which takes a pack of one."""
    return _is_whole(config.method)


@functools.cache
def _is_whole(method: str) -> bool:
    return plugins.load("methods", method).parametrisation().whole


def num_added(config: Config, survey: Survey) -> int:
    """Count the weights that a forward pass multiplies with beside the base's: none where these change in place."""
    return 0 if trains_whole(config) else num_trainable(config, survey)


def num_frozen(config: Config, survey: Survey) -> int:
    """Count the frozen weights of the method's own that a token is multiplied with beside W."""
    return _num_frozen(config.method, ranks(config, survey), survey.sites)


@functools.cache
def _num_frozen(method: str, ranks: tuple[int, ...], sites: tuple[Site, ...]) -> int:
    count: Callable[[int, int, int], int] = plugins.load("methods", method).num_frozen
    return sum(count(site.num_out, site.num_in, rank) for site, rank in zip(sites, ranks, strict=True))


@functools.cache
def _uses_rank(method: str) -> bool:
    return plugins.load("methods", method).uses_rank


def work(config: Config, survey: Survey) -> Work:
    """Return one trial's work on the surveyed base and data."""
    samples = num_samples(config)
    tokens = samples * survey.mean_tokens
    targets = samples * survey.mean_target_tokens
    added, frozen = num_added(config, survey), num_frozen(config, survey)
    if trains_whole(config):  # embeddings are looked up, which is no operation
        train_flops = TRAINED * (tokens * survey.num_base_weights + targets * survey.num_head_weights)
    else:
        # Full fine-tuning counts 6 per weight, by convention; that our dW has a forward pass of its own is left out.
        adapters = (TRAINED if _uses_rank(config.method) else TRAINED - FROZEN) * added
        train_flops = tokens * (FROZEN * (survey.num_base_weights + frozen) + adapters)
        train_flops += targets * FROZEN * survey.num_head_weights
    rows = config.num_validation * (config.num_evaluations + 1)  # and once before the first step
    forward = rows * survey.mean_tokens * FORWARD * (survey.num_base_weights + added + frozen)
    forward += rows * survey.mean_target_tokens * FORWARD * survey.num_head_weights
    return Work(num_steps(config), samples, tokens, train_flops, forward)
