"""Which attention a base runs with: the fastest one whose backward is right for the dtype and device.

On a CPU, PyTorch's fused bfloat16 attention backward is slow (measured: 42 ms against 6 ms for matmul, softmax, matmul
at 128 rows x 4 heads x 64 tokens), so plain attention serves bfloat16 there; the fused one serves everything else.
"""

import torch


def best_attention(dtype: torch.dtype, device: str) -> str:
    """Return the `attn_implementation` of transformers for this dtype and device."""
    return "eager" if device.startswith("cpu") and dtype == torch.bfloat16 else "sdpa"
