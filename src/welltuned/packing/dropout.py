"""LoRA dropout from a counter: what is dropped depends on (trial, optimizer step, row, site, position) only.

So any split into packs and micro-batches drops the same inputs. The hash is the finaliser of splitmix64 (Steele et al.
2014), in wrapping int64 arithmetic. In delta form the dropped input meets the whole change of the weight, B A - B0 A0.
Shape letters: N trials, M rows of a trial, I in, S token slots of a trial.
"""

import torch
from torch import Tensor

from welltuned import rng
from welltuned.records import Config


def _signed(value: int) -> int:
    """Return the 64-bit constant as a signed int64."""
    return value - (1 << 64) if value >= 1 << 63 else value


GOLDEN, MIX1, MIX2 = _signed(0x9E3779B97F4A7C15), _signed(0xBF58476D1CE4E5B9), _signed(0x94D049BB133111EB)


def _mixed(x: Tensor) -> Tensor:
    """Return the splitmix64 finaliser of int64 values (logical shifts, wrapping products)."""
    x = (x ^ ((x >> 30) & 0x3FFFFFFFF)) * MIX1
    x = (x ^ ((x >> 27) & 0x1FFFFFFFFF)) * MIX2
    return x ^ ((x >> 31) & 0x1FFFFFFFF)


class Dropout:
    """The dropout of one micro-step: `keys_NM` names (trial, step, row), `rate_N` is each trial's probability.

    `row_NS` and `position_NS` say which of these rows a slot belongs to, and which of its tokens it holds.
    """

    def __init__(self, keys_NM: Tensor, rate_N: Tensor, row_NS: Tensor, position_NS: Tensor) -> None:
        self.keys_NM = keys_NM
        self.rate_N = rate_N
        self.row_NS = row_NS
        self.position_NS = position_NS

    def apply(self, x_NSI: Tensor, site: int) -> Tensor:
        """Return the inputs with dropped entries zero and the others divided by 1 - rate."""
        num_in = x_NSI.shape[2]
        keys_NS = _mixed(self.keys_NM + _signed(site * GOLDEN % (1 << 64))).gather(1, self.row_NS)
        places_NSI = self.position_NS[..., None] * num_in + torch.arange(num_in, device=x_NSI.device)
        bits_NSI = _mixed(keys_NS[..., None] + places_NSI * GOLDEN) & ((1 << 24) - 1)
        keep = bits_NSI >= (self.rate_N * (1 << 24)).long()[:, None, None]
        return x_NSI * keep / (1 - self.rate_N).to(x_NSI.dtype)[:, None, None]


def key(config: Config, step: int, row: int) -> int:
    """Return the name of a row's dropout: `row` counts within the optimizer step."""
    return rng.seed_of(config.study_seed, "dropout", config.order_seed, step, row)
