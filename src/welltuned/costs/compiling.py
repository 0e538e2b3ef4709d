"""When compiling a decoder's blocks pays: what it saves against what it takes.

All numbers are fixed, so that a plan does not depend on the machine or on the hour. Measured on abacus-middle, 32 LoRA
trials, two CPU cores: compiled blocks take 22 % less time in bfloat16 (44 % with AMX) and 14 % less in float32;
compiling takes 20 to 23 s, 9 to 10 s where the cache on disk has the code.
"""

from collections.abc import Sequence

from welltuned.costs.flops import trains_whole, work
from welltuned.records import Config, Survey

# Two cores, bfloat16, uncompiled, of a real token; measured without AMX: 19, 39 and 2,900 microseconds on abacus-small,
# abacus-middle and SmolLM2-135M. With AMX abacus-middle took 45.
TOKEN_SECONDS, FLOPS_PER_SECOND = 15e-6, 1.7e11
# Of training uncompiled. The compilation pays from 100 s on without AMX and from 50 with it, from 45 and 20 where the
# cache on disk has the code: assumed between them.
COMPILED_FROM_SECONDS = 80


def is_worth_it(configs: Sequence[Config], survey: Survey) -> bool:
    """Say whether the packs of these trials, of which one kind of code serves all, train long enough.

    Dropout differs from site to site, so block to block; weights that are put in the place of the base's at every pass
    have not been tried in compiled blocks.
    """
    items = [work(config, survey) for config in configs]
    seconds = sum(item.num_tokens * TOKEN_SECONDS + item.train_flops / FLOPS_PER_SECOND for item in items)
    return seconds > COMPILED_FROM_SECONDS and not any(config.dropout or trains_whole(config) for config in configs)
