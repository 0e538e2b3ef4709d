"""What a micro-step keeps for the backward pass, in bytes, counted for a Llama block.

The counts follow the code, by what is packed there (`torch.autograd.graph.saved_tensors_hooks`, torch 2.13). Rows lie
one behind the other where the base reads lines, else they are padded.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from welltuned import plugins
from welltuned.records import Config, Site, Survey

BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
# Of what a block keeps (below), on lines queries, keys and values are kept in rows padded to the longest; fused
# attention keeps its output in rows beside that in lines. Counted. Lengths are rounded up as in packing/lines.py.
IN_ROWS, FUSED_IN_ROWS, MULTIPLE = 3, 1, 16
# For each score: softmax in float32 and its bfloat16 copy, or on lines the latter alone. Counted; fused attention keeps
# none.
PLAIN_ATTENTION_BYTES, LINES_ATTENTION_BYTES = 6, 2


@dataclass(frozen=True)
class Kept:
    """Values that a block keeps for each token, beside those of attention alone. Counted.

    As it is: of the hidden size two residuals where they enter a norm, in float32 or better, two norms' outputs,
    queries, keys, values and the attention's output; of the MLP's size the gate, its activation, the other half and
    their product. Compiled: the residuals as they are, and not the gate's activation, which the backward pass computes
    again (A x, too, which is counted all the same).
    """

    wide: int
    hidden: int
    inner: int


PLAIN, COMPILED = Kept(2, 6, 4), Kept(0, 8, 3)


def kept_bytes(
    configs: Sequence[Config], survey: Survey, micro_rows: int, device: str, recompute: bool, compiled: bool
) -> tuple[float, float]:
    """Return what a micro-step keeps for the backward pass: outside attention, and what attention keeps beside that.

    On lines (models/unpadded.py) some of it is kept in rows.
    """
    width, hidden, kept = BYTES[configs[0].dtype], survey.hidden_size, COMPILED if compiled else PLAIN
    joined = survey.reads_lines and pays(configs[0], device, micro_rows)
    num_layers = 2 if recompute else survey.num_layers + 1  # one more, for its gradients
    inputs = width * hidden * survey.num_layers if recompute else 0
    in_rows = IN_ROWS * width * hidden if joined else 0
    longest = _rounded(survey.longest_tokens) if joined else survey.longest_tokens
    row_tokens = len(configs) * micro_rows * longest
    tokens = len(configs) * _line_tokens(survey, micro_rows) if joined else row_tokens
    outside = tokens * (inputs + num_layers * (_layer_bytes(configs, survey, kept) - in_rows))
    attention = _scores_bytes(configs[0], survey, device, longest, joined)
    return outside + row_tokens * num_layers * in_rows, row_tokens * num_layers * attention


def pays(config: Config, device: str, micro_rows: int) -> bool:
    """Say whether rows are read as lines by a base that can (models/unpadded.py)."""
    return micro_rows > 1 or _is_plain(config, device)


def padded_bytes(configs: Sequence[Config], survey: Survey, device: str) -> float:
    """Return what one layer keeps for each token of padded rows."""
    return _layer_bytes(configs, survey, PLAIN) + _scores_bytes(
        configs[0], survey, device, survey.longest_tokens, False
    )


def _line_tokens(survey: Survey, micro_rows: int) -> int:
    """Return the token slots of a trial in the longest micro-step, its rows one behind the other.

    A sum of rows is further from its mean with the root of their number. Assumed; exact for one row.
    """
    spread = micro_rows**0.5 * (survey.longest_tokens - survey.mean_tokens)
    return _rounded(micro_rows * survey.mean_tokens + spread)


def _rounded(num_tokens: float) -> int:
    return math.ceil(num_tokens / MULTIPLE) * MULTIPLE


def _layer_bytes(configs: Sequence[Config], survey: Survey, kept: Kept) -> float:
    """Return what one layer of the base, with its adapters, keeps for each token."""
    width, hidden = BYTES[configs[0].dtype], survey.hidden_size
    base = max(width, 4) * kept.wide * hidden + width * (kept.hidden * hidden + kept.inner * _inner_size(survey))
    return base + _adapter_inner_bytes(configs, survey) / survey.num_layers


def _inner_size(survey: Survey) -> float:
    """Return the size of the MLP: the widest site, or what the number of weights says where the MLP has no site."""
    widest = max(max(site.num_out, site.num_in) for site in survey.sites)
    by_weights = (survey.num_base_weights / (survey.num_layers * survey.hidden_size) - 4 * survey.hidden_size) / 3
    return max(widest, by_weights)


def _adapter_inner_bytes(configs: Sequence[Config], survey: Survey) -> float:
    """Return what the adapters keep for each token over all sites, the mean of the pack's trials."""
    kept = [_num_kept(config.method, config.rank, survey.sites) for config in configs]
    return BYTES[configs[0].dtype] * sum(kept) / len(kept)


@functools.cache
def _num_kept(method: str, rank: int, sites: tuple[Site, ...]) -> int:
    """Count A x, of the rank, or of both A's where anchored, and kept outputs of the base; or what the method says."""
    plugin = plugins.load("methods", method)
    if plugin.num_kept is not None:
        return sum(plugin.num_kept(site.num_out, site.num_in, rank) for site in sites)
    form = plugin.parametrisation()
    outputs = sum(site.num_out for site in sites) if form.keeps_output else 0
    # DoRA's anchor q is a vector, which x does not meet.
    return rank * (2 if set(form.anchors) - {"q"} else 1) * len(sites) + outputs


def _is_plain(config: Config, device: str) -> bool:
    """Say whether attention keeps its scores although there is a fused one (models/attention.py)."""
    return device == "cpu" and config.dtype == "bfloat16"


def _scores_bytes(config: Config, survey: Survey, device: str, longest: int, joined: bool) -> float:
    """Return what attention within one layer keeps for each token of a row, beside its inputs and its output.

    `joined` says that rows lie one behind the other.
    """
    if not _is_plain(config, device) and survey.has_fused_attention:
        return FUSED_IN_ROWS * BYTES[config.dtype] * survey.hidden_size if joined else 0.0
    return (LINES_ATTENTION_BYTES if joined else PLAIN_ATTENTION_BYTES) * survey.num_heads * longest
