"""Attention during generation: PyTorch's fused one over prompts, three small operations for one new token of each row.

Shape letters: R rows, H heads of queries, K of keys and values, G = H / K, L positions in the cache, D size of a head.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "welltuned_generation"


@contextmanager
def fast(network: PreTrainedModel) -> Iterator[None]:
    """Let the model use the attention of this file for the calls inside the block, where it would use the plain one.

    Training chose the plain one for its backward pass (models/attention.py); there is none here. The fused one cannot
    cap scores, so models that do keep what they have.
    """
    usual = network.config._attn_implementation
    caps_scores = network.config.get_text_config().to_dict().get("attn_logit_softcapping") is not None
    if usual != "eager" or caps_scores or not network._supports_sdpa:
        yield
        return
    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    network.set_attn_implementation(NAME)
    try:
        yield
    finally:
        network.set_attn_implementation(usual)


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Return the attention output [R, T, H, D], in the form in which transformers calls attention functions."""
    bias, causal, cap = (others.get(name) for name in ("position_bias", "is_causal", "softcap"))
    one_token = query.shape[2] == 1 and bias is None and cap is None
    if scaling is not None and one_token and query.dtype == torch.bfloat16 and query.device.type == "cpu":
        return one_query(query, key, value, attention_mask, scaling), None
    return sdpa_attention_forward(
        module, query, key, value, attention_mask, dropout, scaling, causal, bias, softcap=cap
    )


def one_query(
    query_RH1D: Tensor, key_RKLD: Tensor, value_RKLD: Tensor, mask_R11L: Tensor | None, scaling: float
) -> Tensor:
    """Return the output [R, 1, H, D] of one query to each row, rounded where transformers' plain attention rounds.

    On a CPU in bfloat16 this is faster than the fused kernel, whose blocks are made for many queries, and the keys
    stand on the left since a product with few rows on the left is slow there.
    """
    num_rows, num_heads = query_RH1D.shape[:2]
    num_groups = key_RKLD.shape[1]
    query_RKGD = query_RH1D.reshape(num_rows, num_groups, num_heads // num_groups, -1)
    scores_RKGL = (key_RKLD @ query_RKGD.mT).mT.contiguous().mul_(scaling)
    if mask_R11L is not None:
        scores_RKGL.masked_fill_(~mask_R11L, float("-inf"))
    return (scores_RKGL.softmax(-1) @ value_RKLD).reshape(num_rows, 1, num_heads, -1)
