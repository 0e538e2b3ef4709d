"""When compiling a decoder's blocks pays, and for how many lengths: what it saves against what it takes.

All numbers are fixed, so that a plan, and the lengths that its packs are padded to, do not depend on the machine or on
the hour. Measured on abacus-middle, 32 LoRA trials, two CPU cores: compiled blocks take a quarter to 44 % less time
in bfloat16 and 13 % less in float32; a length takes 9 to 20 s to compile, 5 s where the cache on disk has it.
"""

from collections.abc import Sequence

from welltuned.costs.flops import FROZEN, trains_whole, work
from welltuned.records import Config, Survey

TOKEN_SECONDS, FLOPS_PER_SECOND = 15e-6, 3e11  # two cores, bfloat16, uncompiled; measured without AMX
LENGTH_SECONDS = 12  # to compile a length where nothing is cached
COMPILED_FROM_SECONDS = 100  # of training uncompiled: an eighth of it pays for the one length that is always compiled


def slot_seconds(num_base_weights: int) -> float:
    """Return what a token slot of a pack takes in a forward and a backward pass."""
    return TOKEN_SECONDS + FROZEN * num_base_weights / FLOPS_PER_SECOND


def is_worth_it(configs: Sequence[Config], survey: Survey) -> bool:
    """Say whether the packs of these trials, of which one kind of code serves all, train long enough.

    Dropout differs from site to site, so block to block; weights that are put in the place of the base's at every pass
    have not been tried in compiled blocks.
    """
    items = [work(config, survey) for config in configs]
    seconds = sum(item.num_tokens * TOKEN_SECONDS + item.train_flops / FLOPS_PER_SECOND for item in items)
    return seconds > COMPILED_FROM_SECONDS and not any(config.dropout or trains_whole(config) for config in configs)
