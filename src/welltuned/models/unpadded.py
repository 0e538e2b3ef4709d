"""Rows one behind the other: a model reads a trial's rows as one line of tokens, and only attention tells them apart.

Padded to the longest of a micro-step, a quarter of the tokens computed may be padding. Here a line holds the rows of a
trial, and lines are padded to the longest line, which is little. Norms and matmuls run on lines; around attention,
tokens are gathered into rows of one length and back. This needs a model that calls attention through transformers'
`AttentionInterface` and takes `position_ids`; `reads_lines` tries it.
Shape letters: N lines, S token slots of a line, R rows, T tokens of a row, P = N S, Q = R T, H heads of queries, K of
keys and values, D size of a head, F = heads x D. A gathers B: one of them is P, the other Q.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from welltuned.models.attention import best_attention

NAME = "welltuned_lines"
# What attention functions are called with and may leave alone; anything else changes what is computed.
IGNORED = {"dropout", "is_causal", "position_ids", "use_cache", "output_attentions", "output_hidden_states"}
LAYERS = {"full_attention", "sliding_attention"}
# What a model's code may raise that is called in a way that it was not made for.
FAILURES = (RuntimeError, TypeError, ValueError, AttributeError, LookupError, AssertionError)
# What lines may differ by, by rounding, of the difference that reading rows as one makes. Measured on the bundled bases
# and SmolLM2-135M, two AMD cores: nothing in float64 and float32, at most 0.02 in bfloat16. The bounds are assumed.
TELLS = {torch.float64: 1e-4, torch.float32: 1e-3, torch.bfloat16: 0.1}
PROBE_ROWS, PROBE_TOKENS, PROBE_WINDOW = 3, 5, 2  # sliding windows are made shorter than the rows they are tried on
ROTARY_BY_LENGTH = {"dynamic", "longrope"}  # whose frequencies follow from the longest position that is read


@dataclass(frozen=True)
class Places:
    """Where the tokens of lines lie in rows, and the other way round; what has no token stands for one of its line."""

    slot_RT: Tensor  # the flat slot n S + s of each token of a row
    token_RT: Tensor  # whether there is one, not padding
    row_NS: Tensor  # the flat place r T + t of each slot
    taken_NS: Tensor  # whether the slot has a token


class _Bound(threading.local):
    """The places of the lines that a thread is reading: attention functions are given tensors of the model only."""

    def __init__(self) -> None:
        self.places: Places | None = None


_bound = _Bound()


@contextmanager
def reading(network: PreTrainedModel, places: Places) -> Iterator[None]:
    """Let the model read lines in the calls of this thread inside the block."""
    usual = network.config._attn_implementation
    assert usual is not None
    try:
        network.set_attn_implementation(NAME)
        with bound(places):
            yield
    finally:
        network.set_attn_implementation(usual)


@contextmanager
def bound(places: Places | None) -> Iterator[None]:
    """Let attention of lines find these places in the calls of this thread inside the block."""
    outer = _bound.places
    try:
        _bound.places = places
        yield
    finally:
        _bound.places = outer


def attend(
    module: nn.Module,
    query_NHSD: Tensor,
    key_NKSD: Tensor,
    value_NKSD: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Return the attention output [N, S, H, D], in the form in which transformers calls attention functions."""
    places = _bound.places
    told = sorted({name for name, value in others.items() if value is not None} - IGNORED)
    told += ["attention_mask"] if attention_mask is not None else []
    told += ["dropout"] if others.get("dropout") else []
    told += ["is_causal"] if others.get("is_causal") is False else []
    if places is None or told:
        raise NotImplementedError(
            f"attention of lines: got {', '.join(told) or 'no lines'}, expected causal attention inside `reading` that "
            "is told of nothing but a scale and a window; let this model read padded rows"
        )
    query, key, value = (_rows(part, places) for part in (query_NHSD, key_NKSD, value_NKSD))
    num_tokens = query.shape[2]
    window = None if sliding_window is None or sliding_window >= num_tokens else sliding_window
    if best_attention(query.dtype, query.device.type) == "eager":
        out_RTHD = _plain(query, key, value, query.shape[-1] ** -0.5 if scaling is None else scaling, window)
    else:
        mask = None if window is None else ~_hidden(num_tokens, window, query.device)
        out_RTHD, _ = sdpa_attention_forward(module, query, key, value, mask, 0.0, scaling, mask is None)
    out_QF = out_RTHD.flatten(0, 1).flatten(1)
    out_PF = _gathered(out_QF, places.row_NS.flatten(), places.slot_RT.flatten(), places.token_RT.flatten())
    return out_PF.view(*places.row_NS.shape, *out_RTHD.shape[2:]), None


def _rows(part_NHSD: Tensor, places: Places) -> Tensor:
    """Return the rows, [R, H, T, D], of queries, keys or values of lines."""
    num_heads, size = part_NHSD.shape[1], part_NHSD.shape[3]
    part_PF = part_NHSD.transpose(1, 2).reshape(-1, num_heads * size)
    part_QF = _gathered(part_PF, places.slot_RT.flatten(), places.row_NS.flatten(), places.taken_NS.flatten())
    return part_QF.view(*places.slot_RT.shape, num_heads, size).transpose(1, 2)


@torch.library.custom_op("welltuned::gathered", mutates_args=())
def _gathered(x_AF: Tensor, index_B: Tensor, back_A: Tensor, there_A: Tensor) -> Tensor:
    """Return x at `index_B`, [B, F]; its gradient is gathered, too, by the way back, and is zero without a token there.

    Autograd would add up what was gathered, one by one, and the compiler read it number by number (15 of the 290 ms of
    a micro-step). No index leads to another line, so that numbers of a trial that are not finite stay with it.
    """
    del back_A, there_A
    return x_AF.index_select(0, index_B)


@_gathered.register_fake
def _(x_AF: Tensor, index_B: Tensor, back_A: Tensor, there_A: Tensor) -> Tensor:
    del back_A, there_A
    return x_AF.new_empty(index_B.shape[0], x_AF.shape[1])


@torch.library.custom_op("welltuned::gathered_back", mutates_args=())
def _gathered_back(gradient_BF: Tensor, back_A: Tensor, there_A: Tensor) -> Tensor:
    """Return the gradient of what was gathered, [A, F]."""
    return gradient_BF.index_select(0, back_A).mul_(there_A[:, None])


@_gathered_back.register_fake
def _(gradient_BF: Tensor, back_A: Tensor, there_A: Tensor) -> Tensor:
    del there_A
    return gradient_BF.new_empty(back_A.shape[0], gradient_BF.shape[1])


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    del output
    ctx.save_for_backward(*inputs[2:])


def _back(ctx: Any, gradient_BF: Tensor) -> tuple[Tensor, None, None, None]:
    return _gathered_back(gradient_BF, *ctx.saved_tensors), None, None, None


_gathered.register_autograd(_back, setup_context=_keep)


def _plain(query_RHTD: Tensor, key_RKTD: Tensor, value_RKTD: Tensor, scaling: float, window: int | None) -> Tensor:
    """Return causal attention, [R, T, H, D], in the fewest passes over the scores, each rounded once.

    Half of the time of transformers' plain one (models/attention.py), which rounds scores three times; the softmax
    computes in float32 and writes bfloat16. Output and gradients are nearer to float32's (measured).
    """
    num_rows, num_heads, num_tokens, size = query_RHTD.shape
    num_keys = key_RKTD.shape[1]
    query = query_RHTD.reshape(num_rows * num_keys, -1, size)  # the queries of a key one behind the other
    key, value = (part.reshape(num_rows * num_keys, num_tokens, size) for part in (key_RKTD, value_RKTD))
    hidden_TT = _hidden(num_tokens, window, query.device).repeat(num_heads // num_keys, 1)
    mask = torch.zeros_like(hidden_TT, dtype=query.dtype).masked_fill_(hidden_TT, -torch.inf)
    weights = torch.baddbmm(mask, query, key.mT, alpha=scaling).softmax(-1)
    return torch.bmm(weights, value).view(num_rows, num_heads, num_tokens, size).transpose(1, 2)


def _hidden(num_tokens: int, window: int | None, device: torch.device) -> Tensor:
    """Return which keys, [T, T], each query must not see: later ones, and those out of its window."""
    place_T = torch.arange(num_tokens, device=device)
    ahead_TT = place_T[None] - place_T[:, None]
    hidden_TT = ahead_TT > 0
    return hidden_TT if window is None else hidden_TT | (ahead_TT <= -window)


def pays(dtype: torch.dtype, device: torch.device, micro_rows: int) -> bool:
    """Say whether lines are better than padded rows, for a model that reads both.

    Several rows of a trial take fewer slots. One row takes as many; but where attention is plain, this one keeps its
    scores once, in bfloat16, and transformers' own in float32, too.
    """
    return micro_rows > 1 or best_attention(dtype, device.type) == "eager"


def may_read_lines(network: PreTrainedModel) -> bool:
    """Say whether the model's code and settings let it read lines, before there are numbers to try it with."""
    settings = network.config.get_text_config().to_dict()
    kinds, cap = settings.get("layer_types") or (), settings.get("attn_logit_softcapping")
    rotary = settings.get("rope_parameters") or {}
    rotary_kinds = {part.get("rope_type") for part in (rotary, *rotary.values()) if isinstance(part, dict)}
    is_known = not set(kinds) - LAYERS and cap is None and not rotary_kinds & ROTARY_BY_LENGTH
    return is_known and network._can_set_attn_implementation()


def reads_lines(network: PreTrainedModel, decoder: nn.Module) -> bool:
    """Say whether the model reads lines as it reads padded rows, which is tried on a few short rows.

    Rows that see one another make a difference of which rounding makes a small part.
    """
    if not may_read_lines(network):
        return False
    slot_RT = torch.arange(PROBE_ROWS * PROBE_TOKENS, device=network.device).view(PROBE_ROWS, PROBE_TOKENS)
    ids_RT = slot_RT % network.config.get_text_config().vocab_size
    every_RT = torch.ones_like(slot_RT, dtype=torch.bool)
    slot_NS, every_NS = slot_RT.view(1, -1), every_RT.view(1, -1)

    def features(ids: Tensor) -> Tensor:
        output = decoder(input_ids=ids, position_ids=(slot_RT % PROBE_TOKENS).view_as(ids), use_cache=False)
        return output.last_hidden_state.flatten(0, 1)

    try:
        with torch.no_grad(), _short_windows(network):
            padded = features(ids_RT)
            with reading(network, Places(slot_RT, every_RT, slot_NS, every_NS)):
                lines = features(ids_RT.view_as(slot_NS))
            with reading(network, Places(slot_NS, every_NS, slot_NS, every_NS)):  # all as one row
                mixed = features(ids_RT.view_as(slot_NS))
    except FAILURES:  # the model does not take them, or `attend` refuses
        return False
    return bool((lines - padded).float().norm() < TELLS[padded.dtype] * (mixed - padded).float().norm())


@contextmanager
def _short_windows(network: PreTrainedModel) -> Iterator[None]:
    """Let sliding windows end within short rows: a model whose attention is not told of its window differs then."""
    holders = {id(one): one for one in (network.config, network.config.get_text_config(), *network.modules())}
    usual = [(one, vars(one).get("sliding_window")) for one in holders.values()]
    changed = [(one, window) for one, window in usual if isinstance(window, int) and window > PROBE_WINDOW]
    try:
        for one, _ in changed:
            vars(one)["sliding_window"] = PROBE_WINDOW
        yield
    finally:
        for one, window in changed:
            vars(one)["sliding_window"] = window


AttentionInterface.register(NAME, attend)
