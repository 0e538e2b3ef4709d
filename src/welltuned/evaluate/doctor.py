"""The machine's own check: packed training equals training alone, the rate of matmuls, the memory that is free."""

import time
from dataclasses import dataclass

import numpy as np
import psutil
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from welltuned import plugins, rng
from welltuned.data import Rows
from welltuned.methods._method import Method
from welltuned.models.base import adapt
from welltuned.objectives import causal_lm
from welltuned.packing import optimizer
from welltuned.packing.batch import RowTable
from welltuned.packing.linear import PackedModel
from welltuned.packing.state import grouped, initial
from welltuned.records import Config, Role, Trial
from welltuned.tasks._task import Example

NUM_STEPS = 5
TOLERANCE = 1e-9  # relative, float64: the promise of the packed trainer's tests
MATMUL_SIZES = (4096, 1024, 1024)  # rows, in, out: large enough to reach the peak (measured: within 5 % of larger ones)
MIN_FREE_BYTES = 2 << 30  # assumed: what the bundled study needs with room to spare


@dataclass(frozen=True)
class Check:
    """One finding: what was measured, what was expected, and whether that is fine."""

    name: str
    ok: bool
    measured: str
    expected: str


def check(config: Config) -> tuple[Check, ...]:
    """Run all checks, the probe trials starting from the training fields of any complete configuration."""
    free_bytes = psutil.virtual_memory().available
    return (
        *packed_equals_alone(config),
        *(matmul(dtype) for dtype in (torch.float32, torch.bfloat16)),
        Check("free memory", free_bytes >= MIN_FREE_BYTES, f"{free_bytes / 2**30:.1f} GiB", "at least 2 GiB"),
    )


def packed_equals_alone(config: Config) -> list[Check]:
    """Train every method for a few steps in a mixed pack and alone, in float64, and compare the losses."""
    trials = [_trial(config, method, rank) for method in plugins.names("methods") for rank in (2, 4)]
    together = _losses(trials)
    checks = []
    for method in plugins.names("methods"):
        mine = [trial for trial in trials if trial.config.method == method]
        differences = [
            abs(packed - alone) / abs(alone)
            for trial in mine
            for packed, alone in zip(together[trial.id], _losses([trial])[trial.id], strict=True)
        ]
        worst = max(differences)
        name = f"packed equals alone: {method}"
        checks.append(Check(name, worst <= TOLERANCE, f"{worst:.1e} relative", f"at most {TOLERANCE:.0e}"))
    return checks


def matmul(dtype: torch.dtype) -> Check:
    """Measure the best rate of a large matmul."""
    rows, num_in, num_out = MATMUL_SIZES
    x, W = torch.randn(rows, num_in).to(dtype), torch.randn(num_out, num_in).to(dtype)
    best = float("inf")
    for _ in range(10):
        start = time.perf_counter()
        torch.nn.functional.linear(x, W)
        best = min(best, time.perf_counter() - start)
    rate = 2 * rows * num_in * num_out / best
    return Check(f"matmul peak, {str(dtype).removeprefix('torch.')}", rate > 0, f"{rate / 1e9:.0f} GFLOP/s", "any")


def _trial(config: Config, method: str, rank: int) -> Trial:
    plugin: Method = plugins.load("methods", method)
    changes = {"rank": rank if plugin.uses_rank else 0, "method_version": plugin.version}
    return Trial(
        config.replace(method=method, scaling=1.0, dtype="float64", learning_rate=1e-2, **changes), Role.SELECT
    )


def _losses(trials: list[Trial]) -> dict[str, list[float]]:
    """Take a few steps on random rows with a tiny random Llama; return each trial's losses."""
    unique = list({trial.id: trial for trial in trials}.values())
    model = _tiny_model()
    order = grouped(unique)
    state = initial(model.base, order)
    table = RowTable(_rows(), 0, model.base.device)
    losses: dict[str, list[float]] = {trial.id: [] for trial in order}
    for count in range(1, NUM_STEPS + 1):
        block = table.block([np.arange(4)] * len(order), 4)
        with model.bound(state):
            chosen_KF = model.base.features(block.ids_RT).flatten(0, 1).index_select(0, block.positions_K)
            weights_K = torch.ones(len(block.targets_K), dtype=torch.float64) / int(table.num_targets.sum())
            total, loss_K = causal_lm.weighted_loss(chosen_KF, model.base.head, block.targets_K, weights_K, 32)
            state.accumulate(total)
        sums = torch.zeros(len(order), dtype=torch.float64).index_add_(0, block.row_K // 4, loss_K)
        for trial, loss in zip(order, sums.tolist(), strict=True):
            losses[trial.id].append(loss)
        for group in state.groups:
            configs = [trial.config for trial in order[group.start : group.stop]]
            size = len(configs)
            optimizer.step(model.base, group, range(size), configs, [1e-2] * size, [count] * size)
    return losses


def _tiny_model() -> PackedModel:
    config = LlamaConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    network = LlamaForCausalLM(config).double()
    numbers = rng.stream(0, "doctor", "weights")
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.from_numpy(0.3 * numbers.standard_normal(tuple(parameter.shape))))
    return PackedModel(adapt(network.eval().requires_grad_(False), None, ("all-linear",)))


def _rows() -> Rows:
    numbers = rng.stream(0, "doctor", "rows")
    ids = tuple(numbers.integers(0, 32, length).astype(np.int32) for length in (9, 7, 12, 10))
    return Rows(ids, np.array([3, 2, 5, 4]), tuple(Example("", "") for _ in ids), 0, 0)
