"""What a set of trials has to compute, counted from the rows it reads; and the peak that the time is held against.

Useful operations, as the benchmark defines them: 4 for each base weight and real token and for each head weight and
target token (a forward pass is 2, the gradient of the activations 2, and a frozen weight has no gradient of its own),
6 for each adapter weight and real token. Padding, recomputation and logits that nobody needs count nothing.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from welltuned import data
from welltuned.costs import flops
from welltuned.data import Rows
from welltuned.models import base as bases
from welltuned.models.base import DTYPES
from welltuned.records import Config, Survey
from welltuned.train.cursor import batches

FROZEN, TRAINED = 4, 6  # operations per weight and token, forward and backward
# rows, in, out: the best of these is the peak. The first is the doctor's; the others were chosen to be larger.
MATMUL_SIZES = ((4096, 1024, 1024), (2048, 2048, 2048), (4096, 4096, 2048))
MATMUL_SECONDS = 1.0  # for each size; assumed to be enough for the best run to be an undisturbed one


@dataclass(frozen=True)
class Work:
    """One trial's rows, real tokens, target tokens, and useful operations."""

    num_rows: int
    num_tokens: int
    num_targets: int
    flops: float


def training_rows(configs: Sequence[Config]) -> Rows:
    """Return the training rows of trials that share their data."""
    first = configs[0]
    return data.load(data.widest(configs), bases.load_tokenizer(first.base, first.revision), ("train",))["train"]


def count(config: Config, rows: Rows, survey: Survey) -> Work:
    """Count what a trial reads, repetitions included."""
    order = np.concatenate(batches(config, len(rows.token_ids)))
    lengths = np.array([len(ids) for ids in rows.token_ids])
    num_targets = lengths - np.maximum(np.asarray(rows.prompt_lengths), 1)  # a first token is predicted by nobody
    tokens, targets = int(lengths[order].sum()), int(num_targets[order].sum())
    return Work(len(order), tokens, targets, useful_flops(survey, flops.num_trainable(config, survey), tokens, targets))


def useful_flops(survey: Survey, num_trained: int, num_tokens: int, num_targets: int) -> float:
    """Return 4 x base weights x tokens + 6 x adapter weights x tokens + 4 x head weights x targets."""
    per_token = FROZEN * survey.num_base_weights + TRAINED * num_trained
    return float(num_tokens * per_token + num_targets * FROZEN * survey.num_head_weights)


def matmul_peaks(dtypes: Sequence[str], threads: int) -> dict[str, float]:
    """Return the operations per second of the best large matmul of each dtype."""
    torch.set_num_threads(threads)
    return {dtype: max(_rate(DTYPES[dtype], *sizes) for sizes in MATMUL_SIZES) for dtype in dtypes}


def _rate(dtype: torch.dtype, rows: int, num_in: int, num_out: int) -> float:
    x, W = torch.ones(rows, num_in, dtype=dtype), torch.ones(num_out, num_in, dtype=dtype)
    best, end = float("inf"), time.perf_counter() + MATMUL_SECONDS
    while time.perf_counter() < end:
        start = time.perf_counter()
        torch.nn.functional.linear(x, W)
        best = min(best, time.perf_counter() - start)
    return 2 * rows * num_in * num_out / best
