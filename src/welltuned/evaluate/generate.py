"""Packed greedy generation with a key-value cache: the same prompts for all trials, each with its own adapter.

Prompts are left-padded and masked. A row that has produced the end token goes on receiving padding until all rows of
its block are through, or `max_new_tokens` is reached. Shape letters: N trials, M prompts of a block, R = N x M rows, T
tokens.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from welltuned.packing.linear import PackedModel
from welltuned.packing.state import PackState

ROWS_PER_BLOCK = 1_024  # rows generated side by side at the most; assumed, to be measured
SHRINK_STEPS, SHRINK_SHARE = 8, 0.75  # how often answered prompts may leave a block, and when it pays; assumed
CACHE_BYTES = 2 << 30  # that the key-value cache of a block may take at the most; assumed


def greedy(
    model: PackedModel, state: PackState, prompts: Sequence[np.ndarray], max_new_tokens: int, end_id: int, pad_id: int
) -> list[list[list[int]]]:
    """Return the generated token ids, without the end token, as result[trial][prompt]."""
    order = np.argsort([len(prompt) for prompt in prompts], kind="stable")
    longest = max(len(prompt) for prompt in prompts) + max_new_tokens
    rows = min(ROWS_PER_BLOCK, CACHE_BYTES // (longest * _cache_bytes(model)))
    width = max(1, rows // state.num_trials)
    result: list[list[list[int]]] = [[[] for _ in prompts] for _ in range(state.num_trials)]
    for first in range(0, len(order), width):
        block = order[first : first + width]
        ids_RT, mask_RT = _left_padded([prompts[index] for index in block], pad_id, model.base.device)
        repeats = (state.num_trials, 1)
        with torch.no_grad(), model.bound(state):
            rows = (ids_RT.repeat(repeats), mask_RT.repeat(repeats))
            new_RT = _block(model, *rows, max_new_tokens, end_id, pad_id, state.num_trials)
        for row, ids in enumerate(new_RT.tolist()):
            trial, place = divmod(row, len(block))
            result[trial][int(block[place])] = ids[: ids.index(end_id)] if end_id in ids else ids
    return result


def _cache_bytes(model: PackedModel) -> int:
    """Return the size of one token's keys and values over all layers."""
    settings = model.base.model.config.get_text_config()
    numbers = settings.to_dict()
    heads = numbers.get("num_key_value_heads") or settings.num_attention_heads
    head_size = numbers.get("head_dim") or settings.hidden_size // settings.num_attention_heads
    return 2 * settings.num_hidden_layers * heads * head_size * model.base.dtype.itemsize


def _left_padded(prompts: Sequence[np.ndarray], pad_id: int, device: torch.device) -> tuple[Tensor, Tensor]:
    longest = max(len(prompt) for prompt in prompts)
    ids = np.full((len(prompts), longest), pad_id, dtype=np.int64)
    mask = np.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = prompt
        mask[row, longest - len(prompt) :] = 1
    return torch.from_numpy(ids).to(device), torch.from_numpy(mask).to(device)


def _block(
    model: PackedModel, ids_RT: Tensor, mask_RT: Tensor, max_new_tokens: int, end_id: int, pad_id: int, num_trials: int
) -> Tensor:
    """Generate for one block of rows, trial-major, [R, new tokens]; prompts that all trials have answered leave it."""
    network = model.base.model
    cache = DynamicCache(config=network.config)
    last_place = (model.base.max_positions or max_new_tokens + ids_RT.shape[1]) - 1
    num_new = min(max_new_tokens, last_place + 2 - ids_RT.shape[1])
    result_RT = ids_RT.new_full((len(ids_RT), num_new), pad_id)
    rows_R = torch.arange(len(ids_RT), device=ids_RT.device)
    done_R = torch.zeros_like(rows_R, dtype=torch.bool)
    inputs, positions = ids_RT, (mask_RT.cumsum(1) - 1).clamp(min=0)
    for step in range(num_new):
        output = network(
            input_ids=inputs,
            attention_mask=mask_RT,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        next_R = output.logits[:, -1].argmax(-1).masked_fill(done_R, pad_id)
        result_RT[rows_R, step] = next_R
        done_R |= next_R == end_id
        if bool(done_R.all()):
            break
        inputs, positions = next_R[:, None], positions[:, -1:] + 1
        mask_RT = torch.cat([mask_RT, mask_RT.new_ones(len(mask_RT), 1)], dim=1)
        open_M = ~done_R.view(num_trials, -1).all(0)
        if step % SHRINK_STEPS == 0 and int(open_M.sum()) <= SHRINK_SHARE * len(open_M):
            keep = open_M.repeat(num_trials).nonzero()[:, 0]
            cache.batch_select_indices(keep)
            parts = (inputs, positions, mask_RT, done_R, rows_R)
            inputs, positions, mask_RT, done_R, rows_R = (part[keep] for part in parts)
    return result_RT
