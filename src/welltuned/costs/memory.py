"""Bytes of a pack with each term named, so that an estimate that is wrong can be corrected term by term.

N trials, m rows of each per micro-step, T padded tokens. The base is held once; everything else grows with N.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from welltuned import plugins
from welltuned.costs.flops import num_trainable, ranks
from welltuned.records import Config, Site, Survey

SAFETY = 1.3  # assumed: fragmentation and temporaries of the largest operation
BYTES = {"float64": 8, "float32": 4, "bfloat16": 2}
# Activations kept for the backward pass, in values per token and layer, as multiples of the hidden size: norms and
# residual 4, queries, keys, values and attention output 4, a gated MLP of 4x hidden with its products 16; the adapters'
# inputs are among them. Assumed from the Llama block.
ACTIVATIONS_PER_LAYER = 24
LOGITS_COPIES = 3  # assumed: logits, their softmax and its gradient, in float32
ADAM_COPIES = {"adamw": 2, "sgd": 1, "sign_sgd": 1}  # moments of the same size as the weights
RUNTIME_BYTES = 400 * 2**20  # assumed: the interpreter, torch and its thread pools, without a model


@dataclass(frozen=True)
class Memory:
    """The terms of a pack's memory in bytes."""

    runtime_bytes: int
    base_bytes: int
    adapter_bytes: int
    anchor_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    activation_bytes: int
    logits_bytes: int
    safety_bytes: int  # on all of the above but the runtime

    @property
    def total_bytes(self) -> int:
        """Return the sum of the terms."""
        return sum(self.terms().values())

    def terms(self) -> dict[str, int]:
        """Return every term by name."""
        return {
            "runtime": self.runtime_bytes,
            "base model": self.base_bytes,
            "adapters": self.adapter_bytes,
            "anchors": self.anchor_bytes,
            "gradients": self.gradient_bytes,
            "optimizer": self.optimizer_bytes,
            "activations": self.activation_bytes,
            "logits": self.logits_bytes,
            "safety": self.safety_bytes,
        }


def estimate(configs: Sequence[Config], survey: Survey, micro_rows: int) -> Memory:
    """Return the memory of a pack with these members, padded to the longest row."""
    width = BYTES[configs[0].dtype]
    adapter_width = max(width, 4)  # adapters are never narrower than float32
    trained = [num_trainable(config, survey) for config in configs]
    moments = sum(ADAM_COPIES[config.optimizer] * count for config, count in zip(configs, trained, strict=True))
    rows = len(configs) * micro_rows
    tokens = rows * survey.longest_tokens
    per_token = ACTIVATIONS_PER_LAYER * survey.num_layers * survey.hidden_size
    attention = survey.num_layers * survey.num_heads * rows * survey.longest_tokens**2  # scores are kept
    adapters = adapter_width * sum(trained)
    terms = {
        "base_bytes": width * survey.num_parameters,
        "adapter_bytes": adapters,
        "anchor_bytes": adapter_width * sum(adapter_values(config, survey) for config in configs) - adapters,
        "gradient_bytes": adapters,
        "optimizer_bytes": adapter_width * moments,
        "activation_bytes": width * (tokens * per_token + attention),
        "logits_bytes": LOGITS_COPIES * 4 * round(rows * survey.mean_target_tokens * survey.vocab_size),
    }
    safety = round((SAFETY - 1) * sum(terms.values()))
    return Memory(runtime_bytes=RUNTIME_BYTES, **terms, safety_bytes=safety)


def adapter_values(config: Config, survey: Survey) -> int:
    """Count the numbers that a trial keeps: the trained ones and its method's anchors."""
    return num_trainable(config, survey) + _num_anchored(config.method, ranks(config, survey), survey.sites)


@functools.cache
def _num_anchored(method: str, ranks: tuple[int, ...], sites: tuple[Site, ...]) -> int:
    form = plugins.load("methods", method).parametrisation()
    return sum(
        math.prod(form.shape(name, site.num_out, site.num_in, rank))
        for name in form.anchors
        for site, rank in zip(sites, ranks, strict=True)
    )
