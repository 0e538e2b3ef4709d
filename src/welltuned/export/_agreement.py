"""Does a merged model say what its adapter said? Both read the same validation rows, and their logits are compared.

Merging rounds W + dW to the base's dtype, which in bfloat16 changes some of the most likely tokens. Shape letters: K
target positions of all rows, V vocabulary.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from welltuned import data
from welltuned.errors import InputError
from welltuned.methods._method import State
from welltuned.models.base import Base
from welltuned.packing.batch import Block, RowTable
from welltuned.packing.linear import PackedModel
from welltuned.packing.state import assemble
from welltuned.records import Trial

NUM_ROWS = 50  # of the validation split: enough to tell 99 % from 90 %, and quick on a large base; assumed
ROWS_AT_A_TIME = 5  # assumed: logits of a large vocabulary are the largest tensor here


@dataclass(frozen=True)
class Agreement:
    """How a merged model compares with base and adapter; without numbers `reason` says why it was not measured."""

    num_rows: int
    num_tokens: int
    share: float | None  # of target positions at which both find the same token most likely
    largest: float | None  # absolute difference of two logits
    reason: str = ""


class Witness:
    """Remembers what base and adapter say on some validation rows, to compare the merged model with."""

    def __init__(self, base: Base, trial: Trial, states: dict[str, State]) -> None:
        self.reason = ""
        self.logits: list[Tensor] = []
        self.table: RowTable | None = None
        try:
            rows = data.load(trial.config, base.tokenizer, ("validation",))["validation"]
        except InputError as error:
            self.reason = f"the validation rows cannot be read: {error.problems[0]}"
            return
        self.table = RowTable(rows, base.tokenizer.eos_token_id, base.device)
        packed = PackedModel(base)
        with packed.bound(assemble(base, [trial], [states])):
            self.logits = [_logits(base, block) for block in self._blocks()]
        packed.close()

    def compare(self, base: Base) -> Agreement:
        """Return how the base, merged by now, agrees with what was remembered."""
        if self.table is None:
            return Agreement(0, 0, None, None, self.reason)
        num_same = num_tokens = 0
        largest = 0.0
        for block, adapter_KV in zip(self._blocks(), self.logits, strict=True):
            merged_KV = _logits(base, block)
            num_same += int((merged_KV.argmax(-1) == adapter_KV.argmax(-1)).sum())
            num_tokens += len(merged_KV)
            largest = max(largest, float((merged_KV - adapter_KV).abs().max()))
        return Agreement(self._num_rows(), num_tokens, num_same / num_tokens, largest)

    def _num_rows(self) -> int:
        return 0 if self.table is None else min(NUM_ROWS, len(self.table.lengths))

    def _blocks(self) -> Iterator[Block]:
        assert self.table is not None
        for first in range(0, self._num_rows(), ROWS_AT_A_TIME):
            rows = np.arange(first, min(first + ROWS_AT_A_TIME, self._num_rows()))
            yield self.table.block([rows], len(rows))


def _logits(base: Base, block: Block) -> Tensor:
    """Return the logits at the target positions, [K, V], in float32."""
    with torch.no_grad():
        features = base.features(block.ids_RT)
        return base.head(features.flatten(0, 1).index_select(0, block.positions_K)).float()
