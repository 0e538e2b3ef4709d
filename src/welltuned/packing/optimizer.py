"""Per-trial optimizers over a group's flat buffers: each trial steps when its own effective batch is complete.

One vectorised pass for all trials that step now; learning rates, betas, decay and clipping are each trial's own. The
arithmetic is that of `torch.optim.AdamW` and `torch.optim.SGD` and of `torch.nn.utils.clip_grad_norm_`; sign-SGD is
Signum (Bernstein et al. 2018) with decoupled decay. Tests hold them against those references. Shape letters: N trials
that step, P trained numbers of a trial.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from welltuned.models.base import Base
from welltuned.packing.group import Group
from welltuned.records import Config

CLIP_EPSILON = 1e-6  # of torch.nn.utils.clip_grad_norm_
# Numbers of a buffer updated at a time. On a CPU 1 MiB in float32, so that four of them stay in the cache; on a GPU as
# many as make starting a kernel no matter, and temporaries of 64 MiB. Assumed.
SLICE_NUMBERS = {"cpu": 1 << 18, "cuda": 1 << 24}


def step(
    base: Base,
    group: Group,
    positions: Sequence[int],
    configs: Sequence[Config],
    rates: Sequence[float],
    counts: Sequence[int],
) -> list[bool]:
    """Update the trials at `positions` of the group and zero their gradients; say whose gradient was clipped.

    `configs[k]`, `rates[k]` (learning rate) and `counts[k]` (optimizer steps, this one included) are those of
    `positions[k]`.
    """
    clipped: list[bool] = [False] * len(positions)
    for name in dict.fromkeys(config.optimizer for config in configs):
        mine = [k for k, config in enumerate(configs) if config.optimizer == name]
        chosen = [positions[k] for k in mine]
        parts = [configs[k] for k in mine], [rates[k] for k in mine], [counts[k] for k in mine]
        for k, was_clipped in zip(mine, _step(base, group, name, chosen, *parts), strict=True):
            clipped[k] = was_clipped
    return clipped


def _step(
    base: Base,
    group: Group,
    name: str,
    positions: list[int],
    configs: list[Config],
    rates: list[float],
    counts: list[int],
) -> list[bool]:
    everyone = len(positions) == group.flat_NP.shape[0]
    index = slice(None) if everyone else torch.tensor(positions, device=group.flat_NP.device)
    factor_N1, clipped = _clip(group.grad_NP, index, configs)
    decays = any(config.weight_decay for config in configs)
    decayed_NP = _decayed(base, group, index, group.flat_NP[index]) if decays else None
    rate_NP = _rates(group, configs, _column_maker(group.flat_NP)(rates))
    width = max(1, SLICE_NUMBERS[group.flat_NP.device.type] // len(positions))
    for first in range(0, group.flat_NP.shape[1], width):
        cut = (index, slice(first, first + width))
        buffers = (group.flat_NP, group.grad_NP, group.moment1_NP, group.moment2_NP)
        parts = [buffer[cut] for buffer in buffers]  # views where everyone steps, copies else
        if factor_N1 is not None:
            parts[1].mul_(factor_N1)
        decayed_part = None if decayed_NP is None else decayed_NP[:, cut[1]]
        rate_part = rate_NP if rate_NP.shape[1] == 1 else rate_NP[:, cut[1]]
        _update(name, parts, decayed_part, rate_part, configs, counts)
        if not everyone:
            for buffer, part in zip(buffers, parts, strict=True):
                buffer[cut] = part
    group.grad_NP[index] = 0
    return clipped


def _update(
    name: str,
    parts: list[Tensor],
    decayed_NP: Tensor | None,
    rate_NP: Tensor,
    configs: list[Config],
    counts: list[int],
) -> None:
    """One step of the named optimizer on the same columns of all buffers; everything in it is elementwise."""
    flat_NP, grad_NP, m_NP, v_NP = parts
    column = _column_maker(flat_NP)
    decay_N1 = column([config.weight_decay for config in configs])
    if decayed_NP is not None and name != "sgd":
        flat_NP.sub_(rate_NP * decay_N1 * decayed_NP)
    if name == "adamw":
        _adamw(flat_NP, grad_NP, m_NP, v_NP, rate_NP, configs, counts)
    elif name == "sgd":
        if decayed_NP is not None:
            grad_NP.add_(decay_N1 * decayed_NP)
        first = column([count == 1 for count in counts])
        m_NP.mul_(torch.where(first, 0, column([config.momentum for config in configs]))).add_(grad_NP)
        flat_NP.sub_(rate_NP * m_NP)
    else:
        momentum_N1 = column([config.momentum for config in configs])
        m_NP.mul_(momentum_N1).add_((1 - momentum_N1) * grad_NP)
        flat_NP.sub_(rate_NP * m_NP.sign())


def _column_maker(like_NP: Tensor):
    """Return a function that makes a [N, 1] column from one value for each trial."""

    def column(values: Sequence[float] | Sequence[bool]) -> Tensor:
        dtype = torch.bool if isinstance(values[0], bool) else like_NP.dtype
        return torch.tensor(values, dtype=dtype, device=like_NP.device)[:, None]

    return column


def _rates(group: Group, configs: list[Config], rate_N1: Tensor) -> Tensor:
    """Return each number's learning rate: the trial's ([N, 1] where that is all), of LoRA+'s B times its ratio."""
    ratios = [config.loraplus_lr_ratio for config in configs]
    if all(ratio == 1 for ratio in ratios):
        return rate_N1
    rate_NP = rate_N1.repeat(1, group.flat_NP.shape[1])
    ratio_N1 = torch.tensor(ratios, dtype=rate_N1.dtype, device=rate_N1.device)[:, None]
    for (_, name), (offset, shape) in group.layout.items():
        if name in group.parametrisation.fast:
            rate_NP[:, offset : offset + math.prod(shape)] *= ratio_N1
    return rate_NP


def _clip(grad_NP: Tensor, index: slice | Tensor, configs: list[Config]) -> tuple[Tensor | None, list[bool]]:
    """Return the factors that bring the chosen trials' gradients to at most their max_grad_norm, and who is clipped."""
    limits = [float("inf") if config.max_grad_norm is None else config.max_grad_norm for config in configs]
    if all(limit == float("inf") for limit in limits):
        return None, [False] * len(configs)
    norm_N1 = torch.linalg.vector_norm(grad_NP, dim=1, keepdim=True)[index]
    factor_N1 = (_column_maker(grad_NP)(limits) / (norm_N1 + CLIP_EPSILON)).clamp(max=1.0)
    return factor_N1, (factor_N1[:, 0] < 1).tolist()


def _adamw(
    flat_NP: Tensor,
    grad_NP: Tensor,
    m_NP: Tensor,
    v_NP: Tensor,
    rate_NP: Tensor,
    configs: list[Config],
    counts: list[int],
) -> None:
    """One Adam step: bias-corrected moments, epsilon outside the root, as in torch.optim.AdamW."""
    column = _column_maker(flat_NP)
    beta1s, beta2s = [config.beta1 for config in configs], [effective_beta2(config) for config in configs]
    m_NP.lerp_(grad_NP, column([1 - beta for beta in beta1s]))  # 1 - beta in float64, as torch does
    v_NP.mul_(column(beta2s)).add_(column([1 - beta for beta in beta2s]) * grad_NP * grad_NP)
    correction1_N1 = column([1 - beta**count for beta, count in zip(beta1s, counts, strict=True)])
    root2_N1 = column([(1 - beta**count) ** 0.5 for beta, count in zip(beta2s, counts, strict=True)])
    denominator_NP = v_NP.sqrt().div_(root2_N1).add_(column([config.epsilon for config in configs]))
    flat_NP.sub_((rate_NP / correction1_N1) * (m_NP / denominator_NP))


def effective_beta2(config: Config) -> float:
    """Return beta2, or beta2^(B/B0), which keeps the half-life in samples fixed (Marek et al. 2025)."""
    if config.beta2_batch_size is None:
        return config.beta2
    return config.beta2 ** (config.batch_size / config.beta2_batch_size)


def _decayed(base: Base, group: Group, index: slice | Tensor, flat_NP: Tensor) -> Tensor:
    """Return what weight decay pulls to zero: the trained numbers plus their anchors (or the base weight)."""
    total_NP = flat_NP.clone()
    for (site, name), (offset, shape) in group.layout.items():
        anchor = group.parametrisation.decayed[name]
        part_NP = total_NP[:, offset : offset + math.prod(shape)]
        if anchor == "none":
            part_NP.zero_()
        elif anchor == "base":
            weight = base.parameters[site].parameter if group.parametrisation.whole else base.weight(site)
            part_NP += weight.to(flat_NP.dtype).reshape(1, -1)
        elif anchor:
            part_NP += group.anchors[site][anchor][index].flatten(1)
    return total_NP
