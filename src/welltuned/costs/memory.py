"""Bytes of a pack with each term named, so that an estimate that is wrong can be corrected term by term.

Some terms are held all the time; of the others the largest moment counts: a micro-step, an update, a validation pass,
or the start. N trials, m rows of each per micro-step, in a line each or padded. The base is held once; all else grows
with N.
What a micro-step keeps for the backward pass is counted in activations.py; what is said to be measured is from
`scripts/measure_memory.py`, on two CPU cores, torch 2.13.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from welltuned import plugins
from welltuned.costs import strands
from welltuned.costs.activations import BYTES, kept_bytes, padded_bytes
from welltuned.costs.flops import num_frozen, num_trainable, ranks, trains_whole
from welltuned.records import Config, Site, Survey

RUNTIME_BYTES = 430 * 2**20  # measured: the interpreter, torch and its thread pools, transformers, without a model
# What the allocator holds beside what is in use. On a CPU (glibc) freed activations leave holes in the heap, into
# which an update fits as far as they go; what is beyond them adds to a micro-step. What stays is packed closely.
# Measured on six packs of `scripts/measure_memory.py`. On a GPU there are fewer holes; assumed.
HELD_OVERHEAD, HOLES = 1.1, 1.4
# Compiled blocks take few large tensors, in the same order each time. What the compiler keeps beside them are its
# modules and what it knows of the code. Both measured on three packs of the script's CHECKS, and on those of
# `make bench`, which are longer and hold more of what oneDNN keeps for each shape.
COMPILED_HOLES, COMPILER_BYTES = 1.0, 250 * 2**20
GPU_OVERHEAD = 1.2
CPU_NUMBERS, GPU_NUMBERS = 1 << 22, 1 << 26  # of objectives/causal_lm.py
LOGITS_BYTES = 12  # for each logit of a chunk: itself, its float32 copy, and the gradient in both. Counted
PASS_TOKENS = 16_384  # of evaluate/nll.py
# Numbers that initialisations may hold of what they saw in training rows: sites are looked at in as many parts as that
# takes (packing/samples.py). Assumed: 1 GiB in float32; the largest layers of a 7B model have 0.045 x 2^30 weights.
SEEN_NUMBERS = 1 << 28
DEQUANTISED_BYTES = 8  # for each weight of one layer: in float32, in the activations' dtype, and once more for a method
UPDATE_COPIES = 1  # of the adapters: their gradients once more, before they are added up; an update itself is sliced


@dataclass(frozen=True)
class Memory:
    """The terms of a pack's memory in bytes; each but the base includes the allocator's overhead."""

    runtime_bytes: int
    compiler_bytes: int
    base_bytes: int
    adapter_bytes: int
    anchor_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    # a micro-step
    activation_bytes: int
    attention_bytes: int
    logits_bytes: int
    copy_bytes: int  # of the adapters, where activations are narrower; of all weights where all of them are trained
    dequantised_bytes: int  # the weight of one layer, where the base is held in 8 bits
    update_bytes: int  # on a CPU, of what an update takes, that which holes do not take in
    is_freed: bool  # what a micro-step took, for the update after it
    # other moments
    validation_bytes: int
    start_bytes: int  # the adapters' numbers once more, while they are stacked; or the base's, while it is read

    @property
    def total_bytes(self) -> int:
        """Return what is held and what the largest moment adds."""
        return sum(self.terms().values())

    def terms(self) -> dict[str, int]:
        """Return by name what is held and what the largest moment adds."""
        step = {
            "activations": self.activation_bytes,
            "attention": self.attention_bytes,
            "logits": self.logits_bytes,
            "adapters' copies": self.copy_bytes,
            "dequantised layer": self.dequantised_bytes,
        }
        update = {"update": self.update_bytes}
        moments = [{"validation": self.validation_bytes}, {"start": self.start_bytes}]
        moments += [step, update] if self.is_freed else [step | update]
        held = {
            "runtime": self.runtime_bytes,
            "compiler": self.compiler_bytes,
            "base model": self.base_bytes,
            "adapters": self.adapter_bytes,
            "anchors": self.anchor_bytes,
            "gradients": self.gradient_bytes,
            "optimizer": self.optimizer_bytes,
        }
        return held | max(moments, key=lambda moment: sum(moment.values()))


def estimate(
    configs: Sequence[Config],
    survey: Survey,
    micro_rows: int,
    device: str = "cpu",
    recompute: bool = False,
    compiled: bool = False,
) -> Memory:
    """Return the memory of a pack with these members, at its longest micro-step.

    `recompute` keeps only what enters each layer, and computes the layer again in the backward pass; `compiled` says
    that the blocks are.
    """
    width, quantised = BYTES[configs[0].dtype], configs[0].quantization == "int8"
    wide = max(width, 4)  # adapters are never narrower than float32
    adapters = wide * sum(num_trainable(config, survey) for config in configs)
    values = sum(adapter_values(config, survey) for config in configs)
    values += num_shared(configs, survey)
    rows = len(configs) * micro_rows
    activations, attention = kept_bytes(configs, survey, micro_rows, device, recompute, compiled)
    number = strands.number([len(configs)], strands.MOST, device, False)  # at most: threads are not known here
    held, reading = _base_bytes(configs[0], survey, device)
    one_row_each = len(configs) * survey.longest_tokens
    pass_tokens = min(max(PASS_TOKENS, one_row_each), one_row_each * survey.num_validation)
    copies = width * values if width < wide else 0
    # factors that sites share are scaled for each site and trial
    copies += width * sum(num_frozen(config, survey) for config in configs if _has_shared(config.method))
    if trains_whole(configs[0]):  # W + dW in the base's dtype, and the gradient of a head, added up over chunks
        copies = width * survey.num_parameters + wide * survey.num_head_weights
    held_terms = {
        "adapter_bytes": adapters,
        "anchor_bytes": wide * values - adapters,
        "gradient_bytes": adapters,
        "optimizer_bytes": 2 * adapters,  # both moments, whatever the optimizer uses of them
        "copy_bytes": copies,
        "update_bytes": adapters * UPDATE_COPIES,
        "start_bytes": max(wide * values + _seen_bytes(configs, survey), reading - 4 * adapters),
    }
    kept_terms = {"activation_bytes": activations, "attention_bytes": attention}
    passing_terms = {
        "logits_bytes": _logits_bytes(survey, rows, device, number),
        "dequantised_bytes": number * DEQUANTISED_BYTES * _largest_site(survey) if quantised else 0,
        "validation_bytes": pass_tokens * padded_bytes(configs, survey, device) + _logits_bytes(survey, rows, device),
    }
    terms: dict[str, int] = {}
    factors = _overheads(device, compiled)
    for factor, named in zip(factors, (held_terms, kept_terms, passing_terms), strict=True):
        terms |= {name: round(factor * value) for name, value in named.items()}
    if device == "cpu":
        holes = sum(terms[name] for name in kept_terms) - sum(kept_terms.values())
        terms["update_bytes"] = max(0, terms["update_bytes"] - round(holes))
    compiler = COMPILER_BYTES if compiled and device == "cpu" else 0  # it is the host's
    terms |= {"runtime_bytes": RUNTIME_BYTES, "compiler_bytes": compiler, "base_bytes": held}
    return Memory(is_freed=device != "cpu", **terms)


def _overheads(device: str, compiled: bool) -> tuple[float, float, float]:
    """Return what the allocator makes of what is held, of what blocks keep for the backward pass, and of the rest."""
    if device != "cpu":
        return GPU_OVERHEAD, GPU_OVERHEAD, GPU_OVERHEAD
    return HELD_OVERHEAD, COMPILED_HOLES if compiled else HOLES, HOLES


def _logits_bytes(survey: Survey, num_rows: float, device: str, number: int = 1) -> float:
    """Return the bytes of the logits at the targets of these rows, in pieces of which so many are held at once."""
    most = number * (CPU_NUMBERS if device == "cpu" else GPU_NUMBERS)
    return LOGITS_BYTES * min(most, num_rows * survey.mean_target_tokens * survey.vocab_size)


def _base_bytes(config: Config, survey: Survey, device: str) -> tuple[int, int]:
    """Return what the base takes, and what it takes beyond that while it is read, before there are adapters.

    On a CPU weights of the file's own dtype are the file itself, mapped, for as long as one of them is used: the
    embedding is, where linear layers are quantised. Of another dtype they are read beside the file. Measured on Linux
    (torch 2.13, transformers 5.23).
    """
    width, quantised = BYTES[config.dtype], config.quantization == "int8"
    base = width * survey.num_parameters
    held = _quantised_bytes(survey, width) if quantised else base
    if device != "cpu":
        return held, 0
    if survey.stored_dtype == config.dtype:
        return (held + width * survey.num_base_weights if quantised else base), 0
    return held, BYTES[survey.stored_dtype or "float32"] * survey.num_parameters + base - held


def _quantised_bytes(survey: Survey, width: int) -> int:
    """Return the bytes of a base whose linear layers are held in 8 bits, with a float32 scale for each output row.

    All non-embedding weights count as linear; that norms and biases are not is left out.
    """
    rows = survey.num_base_weights // survey.hidden_size  # at most: some layers have longer rows
    return survey.num_base_weights + 4 * rows + width * (survey.num_parameters - survey.num_base_weights)


def _largest_site(survey: Survey) -> int:
    return max(site.num_out * site.num_in for site in survey.sites)


def _seen_bytes(configs: Sequence[Config], survey: Survey) -> int:
    """Return what initialisations hold of training rows: gradients in the base's dtype, and covariances in float64."""
    looks = {_look(config) for config in configs} - {None}
    numbers: dict[str, int] = {"gradient": 0, "inputs": 0}
    largest = 0
    for at in (look[0] for look in looks if look is not None):
        counts = [site.num_out * site.num_in if at == "gradient" else site.num_in**2 for site in survey.sites]
        numbers[at] += sum(counts)
        largest += max(counts)
    widths = {"gradient": BYTES[configs[0].dtype], "inputs": 8}
    share = min(1.0, max(SEEN_NUMBERS, largest) / max(1, sum(numbers.values())))
    return round(share * sum(widths[at] * count for at, count in numbers.items()))


def _look(config: Config) -> tuple[str, int, tuple[object, ...]] | None:
    """Return what a trial's initialisation looks at, and at which rows; equal ones are looked at once."""
    at, num_samples = _looks(config.method)
    return (at, num_samples, (config.subset, config.subset_seed, config.num_train)) if num_samples else None


@functools.cache
def _looks(method: str) -> tuple[str, int]:
    plugin = plugins.load("methods", method)
    return plugin.looks_at, plugin.samples


def adapter_values(config: Config, survey: Survey) -> int:
    """Count the numbers that a trial keeps for itself: the trained ones and its method's anchors."""
    return num_trainable(config, survey) + _num_anchored(config.method, ranks(config, survey), survey.sites)


@functools.cache
def _num_anchored(method: str, ranks: tuple[int, ...], sites: tuple[Site, ...]) -> int:
    form = plugins.load("methods", method).parametrisation()
    return sum(
        math.prod(form.shape(name, site.num_out, site.num_in, rank))
        for name in form.anchors
        if name not in form.shared
        for site, rank in zip(sites, ranks, strict=True)
    )


def num_shared(configs: Sequence[Config], survey: Survey) -> int:
    """Count the anchors that sites share: once for trials of one seed and rank, else for each (packing/state.py)."""
    members: dict[tuple[object, ...], list[Config]] = {}
    for config in configs:
        members.setdefault(_group(config), []).append(config)
    total = 0
    for group in members.values():
        alike = len({(one.init_seed, one.rank, one.start_from) for one in group}) == 1
        counted = group[:1] if alike else group
        total += sum(_num_shared(one.method, ranks(one, survey), survey.sites) for one in counted)
    return total


def _group(config: Config) -> tuple[object, ...]:
    """Return what trials of one group share (packing/state.py): ranks within a factor of 2, or the very rank."""
    if _is_padded(config.method):
        return config.method, config.rank.bit_length()
    return config.method, config.rank, config.rank_pattern


@functools.cache
def _is_padded(method: str) -> bool:
    return plugins.load("methods", method).parametrisation().padded


@functools.cache
def _num_shared(method: str, ranks: tuple[int, ...], sites: tuple[Site, ...]) -> int:
    form = plugins.load("methods", method).parametrisation()
    total = 0
    for rank in set(ranks):
        own = [site for site, one in zip(sites, ranks, strict=True) if one == rank]
        for name in form.shared:  # each is the first rows and columns of one tensor
            shapes = [form.shape(name, site.num_out, site.num_in, rank) for site in own]
            total += math.prod(max(sizes) for sizes in zip(*shapes, strict=True))
    return total


@functools.cache
def _has_shared(method: str) -> bool:
    return bool(plugins.load("methods", method).parametrisation().shared)
