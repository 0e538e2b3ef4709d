"""Does a merged model say what its adapter said? Both read the same rows and write answers to the same prompts.

Merging rounds W + dW to the base's dtype, which in bfloat16 changes some of the most likely tokens, and with them some
texts. The rows are the trial's own validation rows, or random tokens where these cannot be read.
Shape letters: K target positions of all rows, V vocabulary.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from welltuned import data, plugins, rng
from welltuned.errors import InputError
from welltuned.evaluate import cache, generate
from welltuned.methods._method import State
from welltuned.models.base import Base
from welltuned.packing.batch import Block, RowTable
from welltuned.packing.linear import PackedModel
from welltuned.packing.state import PackState, assemble
from welltuned.records import Trial
from welltuned.tasks._task import Example

NUM_ROWS = 50  # of the validation split: enough to tell 99 % from 90 %, and quick on a large base; assumed
ROWS_AT_A_TIME = 5  # assumed: logits of a large vocabulary are the largest tensor here
RANDOM_PROMPT, RANDOM_TARGET = 16, 8  # tokens of a row where there are no others; assumed
TEXT_TOKENS = 128  # of one answer at the most, fewer where the task says so; assumed
TEXT_SECONDS = 60  # into which the adapter's texts go, as many prompts as there is time for; assumed


@dataclass(frozen=True)
class Agreement:
    """How a merged model compares with base and adapter, on rows whose origin `rows` says."""

    rows: str
    num_rows: int
    num_tokens: int
    share: float  # of target positions at which both find the same token most likely
    largest: float  # absolute difference of two logits
    num_texts: int  # answers that both wrote, greedily
    num_same_texts: int  # token for token
    no_texts: str = ""  # why none were written

    def text(self) -> str:
        """Say it in two sentences."""
        if self.no_texts:
            texts = f"No texts were compared: {self.no_texts}."
        else:
            texts = f"Of {self.num_texts} texts written greedily, {self.num_same_texts} are the same."
        return (
            f"Compared with base and adapter on {self.num_rows} {self.rows}, the merged model finds the same token "
            f"most likely at {100 * self.share:.2f} % of {self.num_tokens:,} positions; logits differ by at most "
            f"{self.largest:.1e}. {texts}"
        )


class Witness:
    """Remembers what base and adapter say on some rows, to compare the merged model with."""

    def __init__(self, base: Base, trial: Trial, states: dict[str, State]) -> None:
        self.trial, self.no_texts = trial, ""
        rows, self.rows = _rows(base, trial)
        self.table = RowTable(rows, base.tokenizer.eos_token_id, base.device)
        pairs = zip(rows.token_ids, rows.prompt_lengths, strict=True)
        self.prompts = [np.asarray(ids[:length]) for ids, length in pairs if length][:NUM_ROWS]
        packed = PackedModel(base)
        state = assemble(base, [trial], [states])
        with packed.bound(state):
            self.logits = [_logits(base, block) for block in self._blocks()]
        self.texts = self._texts(packed, state, TEXT_SECONDS)
        packed.close()

    def compare(self, base: Base) -> Agreement:
        """Return how the base, merged by now, agrees with what was remembered."""
        num_same = num_tokens = 0
        largest = 0.0
        for block, adapter_KV in zip(self._blocks(), self.logits, strict=True):
            merged_KV = _logits(base, block)
            num_same += int((merged_KV.argmax(-1) == adapter_KV.argmax(-1)).sum())
            num_tokens += len(merged_KV)
            largest = max(largest, float((merged_KV - adapter_KV).abs().max()))
        packed = PackedModel(base)
        del self.prompts[len(self.texts) :]
        texts = self._texts(packed, _nothing(base, self.trial), float("inf"))
        packed.close()
        same = sum(own == theirs for own, theirs in zip(self.texts, texts, strict=True))
        numbers = (self._num_rows(), num_tokens, num_same / num_tokens, largest, len(texts), same)
        return Agreement(self.rows, *numbers, self.no_texts)

    def _texts(self, model: PackedModel, state: PackState, seconds: float) -> list[list[int]]:
        """Return greedy answers to the prompts, a few at a time until the time is over."""
        if not self.prompts:
            self.no_texts = "no row has a prompt"
            return []
        try:
            cache.check(model.base.model)
        except InputError as error:
            self.no_texts = f"the model cannot write in packs ({error.problems[0]})"
            return []
        most = min(TEXT_TOKENS, plugins.load("tasks", self.trial.config.task).max_new_tokens)
        end_id = model.base.tokenizer.eos_token_id
        texts: list[list[int]] = []
        began = time.monotonic()
        while len(texts) < len(self.prompts) and (not texts or time.monotonic() - began < seconds):
            part = self.prompts[len(texts) : len(texts) + ROWS_AT_A_TIME]
            texts += generate.greedy(model, state, part, most, end_id, end_id)[0]
        return texts

    def _num_rows(self) -> int:
        return min(NUM_ROWS, len(self.table.lengths))

    def _blocks(self) -> Iterator[Block]:
        for first in range(0, self._num_rows(), ROWS_AT_A_TIME):
            rows = np.arange(first, min(first + ROWS_AT_A_TIME, self._num_rows()))
            yield self.table.block([rows], len(rows))


def _rows(base: Base, trial: Trial) -> tuple[data.Rows, str]:
    """Return the rows to compare on, and what they are."""
    try:
        return data.load(trial.config, base.tokenizer, ("validation",))["validation"], "validation rows"
    except InputError as error:
        length = min(RANDOM_PROMPT + RANDOM_TARGET, base.max_positions or RANDOM_PROMPT + RANDOM_TARGET)
        numbers = rng.stream(0, "agreement", "rows").integers(0, base.vocab_size, (NUM_ROWS, length))
        lengths = np.full(NUM_ROWS, length - RANDOM_TARGET)
        rows = data.Rows(tuple(numbers.astype(np.int32)), lengths, (Example("", ""),) * NUM_ROWS, 0, 0)
        return rows, f"rows of random tokens (the validation rows cannot be read: {error.problems[0]})"


def _nothing(base: Base, trial: Trial) -> PackState:
    """Return the state of a trial that changes nothing: rank 1, all zeros."""
    config = trial.config.replace(method="lora", rank=1, rank_pattern=(), alpha_pattern=(), start_from=None)
    dtype = torch.promote_types(base.dtype, torch.float32)
    states: dict[str, State] = {}
    for site in base.sites:
        num_out, num_in = base.shape(site)
        states[site] = {"A": torch.zeros(1, num_in, dtype=dtype), "B": torch.zeros(num_out, 1, dtype=dtype)}
    return assemble(base, [Trial(config, trial.role)], [states])


def _logits(base: Base, block: Block) -> Tensor:
    """Return the logits at the target positions, [K, V], in float32."""
    with torch.no_grad():
        features = base.features(block.ids_RT)
        return base.head(features.flatten(0, 1).index_select(0, block.positions_K)).float()
