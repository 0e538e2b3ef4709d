"""The machine's own check: packed training equals training alone, the rate of matmuls, the memory that is free."""

import time

import psutil
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from welltuned import plugins, rng
from welltuned.evaluate.conformance import (
    TOLERANCES,
    Check,
    check_method,
    fitting_ranks,
    is_alone,
    largest_difference,
    random_rows,
    train,
    trial_of,
)
from welltuned.models import base as bases
from welltuned.models.base import Base, adapt
from welltuned.packing import probe
from welltuned.packing.batch import RowTable
from welltuned.packing.linear import PackedModel
from welltuned.records import Config

MATMUL_SIZES = (4096, 1024, 1024)  # rows, in, out: large enough to reach the peak (measured: within 5 % of larger ones)
MIN_FREE_BYTES = 2 << 30  # assumed: what the bundled study needs with room to spare


def check(config: Config) -> tuple[Check, ...]:
    """Run all checks, the probe trials starting from the training fields of any complete configuration."""
    free_bytes = psutil.virtual_memory().available
    return (
        *packed_equals_alone(config),
        *(matmul(dtype) for dtype in (torch.float32, torch.bfloat16)),
        Check("free memory", free_bytes >= MIN_FREE_BYTES, f"{free_bytes / 2**30:.1f} GiB", "at least 2 GiB"),
    )


def check_on(config: Config, method: str) -> tuple[Check, ...]:
    """Say how the base of a configuration reads rows, and run one method's conformance on it; its probes come first."""
    arguments = (config.base, config.revision, config.dtype, config.target_modules)
    model = PackedModel(bases.load(*arguments, quantization=config.quantization))
    probe.check(model)
    return how_rows_are_read(model.base), *check_method(model, config, method)


def how_rows_are_read(base: Base) -> Check:
    """Say whether the base reads the rows of a trial in lines; either way is right, padding takes longer."""
    told = "one behind the other" if base.reads_lines else "padded to the longest"
    return Check("how a trial's rows are read", True, told, "either")


def packed_equals_alone(config: Config) -> list[Check]:
    """Train every method for a few steps in a mixed pack and alone, in float64, and compare the losses.

    But for those that train the whole model, which are never packed. The pack reads rows one behind the other, a trial
    alone reads them padded, so that this is compared, too.
    """
    model = _tiny_model()
    table = RowTable(random_rows(model.base.vocab_size), 0, model.base.device)
    coarse = config.replace(dtype="float64")
    trials = {
        name: [trial_of(coarse, name, rank) for rank in fitting_ranks(model.base, name)] for name in _packed_methods()
    }
    everyone = list({one.id: one for pair in trials.values() for one in pair}.values())
    together = train(model, everyone, table, joined=model.base.reads_lines)
    tolerance = TOLERANCES[torch.float64]
    checks: list[Check] = []
    for name, mine in trials.items():
        worst = max(largest_difference(together, train(model, [trial], table)) for trial in mine)
        told = f"{worst:.1e} relative"
        checks.append(Check(f"packed equals alone: {name}", worst <= tolerance, told, f"at most {tolerance:.0e}"))
    return checks


def _packed_methods() -> list[str]:
    return [name for name in plugins.names("methods") if not is_alone(name)]


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
    _keep_float64(network)
    return PackedModel(adapt(network.eval().requires_grad_(False), None, ("all-linear",)))


def _keep_float64(network: LlamaForCausalLM) -> None:
    """Replace the norms of transformers, which round to float32 on the way and hide what is smaller."""
    for module in list(network.modules()):
        for name, norm in list(module.named_children()):
            if isinstance(norm, LlamaRMSNorm):
                own = torch.nn.RMSNorm(norm.weight.shape, norm.variance_epsilon, dtype=torch.float64)
                own.weight = norm.weight
                setattr(module, name, own)
