"""Packed greedy generation with a key-value cache: the same prompts for all trials, each with its own adapter.

A block has W rows of each trial. Every trial walks through the prompts at its own pace, longest first: a row that has
its answer is idle until its trial's next prompts are read into idle rows, a trial that has all its answers leaves.
Idle rows compute along (the block is dense) and their tokens go nowhere.
Shape letters: N trials that still generate, M prompts, W rows of a trial, R = N x W, T tokens, L positions of the
block, F fields of a row, K rows that move.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor
from transformers import Cache

from welltuned.evaluate import attention
from welltuned.evaluate import cache as caches
from welltuned.evaluate.frozen import frozen
from welltuned.packing.linear import PackedModel
from welltuned.packing.state import PackState

ROWS_PER_BLOCK = 1_024  # rows generated side by side at the most; assumed, to be measured
CACHE_BYTES = 2 << 30  # that the key-value cache of a block may take at the most; assumed
STEPS = 8  # tokens of each row between two looks at what has ended; assumed
ROOM = 64  # positions that a block has room for when it is arranged; a copy of the cache for as many tokens
READ_TOKENS = 2_048  # padded prompt tokens of one pass: matmuls are near their peak, and padding is little; assumed
SHRINK_SHARE = 0.75  # of rows, positions or trials: where so few are in use, a copy without the others pays; assumed
REFILL_SHARE = 0.25  # of rows: where so many are idle, new prompts are read; assumed

FIELDS = 5
PLACE, COUNT, LIMIT, POSITION, TOKEN = range(FIELDS)  # of a row: its answer's place, tokens so far, at the most, ...


def greedy(
    model: PackedModel, state: PackState, prompts: Sequence[np.ndarray], max_new_tokens: int, end_id: int, pad_id: int
) -> list[list[list[int]]]:
    """Return the generated token ids, without the end token, as result[trial][prompt]."""
    generation = Generation(model, state, prompts, max_new_tokens, end_id, pad_id)
    for _ in generation.run():
        pass
    return generation.answers()


class Generation:
    """The answers of all trials of a pack to the same prompts. `run` yields often, to let one see how far it is."""

    def __init__(
        self,
        model: PackedModel,
        state: PackState,
        prompts: Sequence[np.ndarray],
        max_new_tokens: int,
        end_id: int,
        pad_id: int,
    ) -> None:
        caches.check(model.base.model)
        self._model, self._whole_state = model, state
        self._end_id, self._pad_id = end_id, pad_id
        self._order = np.argsort([-len(prompt) for prompt in prompts], kind="stable")
        self._prompts = [prompts[index] for index in self._order]
        lengths = np.array([len(prompt) for prompt in self._prompts])
        most = model.base.max_positions or int(lengths[0]) + max_new_tokens
        self._last_position = most - 1
        self._lengths_M = lengths
        self._limits_M = np.clip(most + 1 - lengths, 1, max_new_tokens)
        position_bytes = caches.token_bytes(model.base.model, model.base.dtype.itemsize)
        row_bytes = position_bytes * (int((lengths + self._limits_M).max()) + ROOM)
        self._num_rows = min(ROWS_PER_BLOCK, CACHE_BYTES // row_bytes)
        num_answers = state.num_trials * len(prompts)
        # One row more, and one token more, take what idle rows go on writing.
        self._answers_AT = self._tensor(np.full((num_answers + 1, max_new_tokens + 1), -1))
        self._trials_N = np.arange(state.num_trials)
        self._next_N = np.zeros(state.num_trials, dtype=np.int64)  # each trial's first prompt that is not begun
        self._state = frozen(state, self._trials_N.tolist(), model.base.dtype)
        self._cache: Cache | None = None
        self._length = 0  # positions of the block in use
        self._fields_FR = self._tensor(np.zeros((FIELDS, 0)))
        self._seen_RL = _seen(self._fields_FR[POSITION], 0, 0)  # which positions a row sees
        self._left_NW = np.zeros((state.num_trials, 0), dtype=np.int64)  # tokens that a row may still get; 0: idle
        self._used_NW = np.zeros((state.num_trials, 0), dtype=np.int64)  # a row's tokens in the cache

    @property
    def share(self) -> float:
        """Return the share of the answers that are complete."""
        num_trials, num_prompts = self._whole_state.num_trials, len(self._prompts)
        num_open = int((num_prompts - self._next_N).sum() + (self._left_NW > 0).sum())
        return 1 - num_open / (num_trials * num_prompts)

    @property
    def num_tokens(self) -> int:
        """Return the number of tokens generated so far, end tokens among them."""
        return int((self._answers_AT[:-1, :-1] >= 0).sum())

    def answers(self) -> list[list[list[int]]]:
        """Return the generated token ids, without the end token, as result[trial][prompt]."""
        num_prompts = len(self._prompts)
        result: list[list[list[int]]] = [[[] for _ in self._prompts] for _ in range(self._whole_state.num_trials)]
        for place, ids in enumerate(self._answers_AT[:-1].tolist()):
            trial, prompt = divmod(place, num_prompts)
            length = next(count for count, token in enumerate(ids) if token in (-1, self._end_id))
            result[trial][self._order[prompt]] = ids[:length]
        return result

    def run(self) -> Iterator[None]:
        """Generate; yield after every few tokens and every pass over prompts."""
        while True:
            new_N = self._arrange(self._vacancies())
            if not len(self._trials_N):
                return
            while new_N.any():
                with self._ready():
                    new_N = self._read(new_N)
                yield
            steps = min(STEPS, int(self._left_NW.max()))
            if steps:
                with self._ready():
                    self._write(steps)
                yield
            open_NW = (self._fields_FR[COUNT] < self._fields_FR[LIMIT]).view(self._left_NW.shape).cpu().numpy()
            self._left_NW *= open_NW

    # What goes where ---------------------------------------------------------------------------------------------

    def _vacancies(self) -> np.ndarray:
        """Return how many prompts each trial begins now: none, until enough rows are idle."""
        open_N = (self._left_NW > 0).sum(1)
        waiting_N = len(self._prompts) - self._next_N
        width = max(1, self._num_rows // max(1, len(self._trials_N)))
        new_N = np.minimum(np.maximum(width - open_N, 0), waiting_N)
        if not new_N.any():
            return new_N
        if new_N.sum() < REFILL_SHARE * width * len(new_N) and (new_N < waiting_N).any() and open_N.any():
            return np.zeros_like(new_N)
        return np.minimum(new_N, -(-new_N.sum() // np.count_nonzero(new_N)))  # even: a pass is as wide as the widest

    def _arrange(self, new_N: np.ndarray) -> np.ndarray:
        """Move rows where it pays or must be: trials that are through, idle rows and empty positions go, room comes.

        Return what the trials that are left begin.
        """
        open_NW = self._left_NW > 0
        through_N = ~open_NW.any(1) & (self._next_N == len(self._prompts))
        keep_N = ~through_N if through_N.sum() > (1 - SHRINK_SHARE) * len(through_N) else np.ones_like(through_N)
        if through_N.all():
            self._trials_N = self._trials_N[:0]
            return new_N[:0]
        width = int((open_NW.sum(1) + new_N).max())
        begun = [int(self._lengths_M[first]) for first, new in zip(self._next_N, new_N, strict=True) if new]
        length = max([*begun, int((self._used_NW * open_NW).max(initial=0))])
        now = self._left_NW.shape[1]
        if (
            not keep_N.all()
            or not SHRINK_SHARE * now < width <= now
            or not SHRINK_SHARE * self._length < length <= self._length
            or self._length + STEPS > self._seen_RL.shape[1]
        ):
            self._move(keep_N, width, length)
        return new_N[keep_N]

    def _move(self, keep_N: np.ndarray, width: int, length: int) -> None:
        """Put each kept trial's open rows in front, in a block of another size."""
        trial_K, column_K = np.nonzero((self._left_NW > 0) & keep_N[:, None])
        new_trial_K = (np.cumsum(keep_N) - 1)[trial_K]
        first_K = np.searchsorted(trial_K, trial_K)  # of the row's trial: nonzero goes through them in order
        new_column_K = np.arange(len(trial_K)) - first_K
        source_K = self._tensor(trial_K * self._left_NW.shape[1] + column_K)
        target_K = self._tensor(new_trial_K * width + new_column_K)
        num_trials = int(keep_N.sum())
        num_rows, room = num_trials * width, length + ROOM
        if self._cache is not None:
            caches.rearrange(self._cache, source_K, target_K, num_rows, length, room)
        fields_FR, self._fields_FR = self._fields_FR, self._fields_FR.new_zeros(FIELDS, num_rows)
        self._fields_FR[:, target_K] = fields_FR[:, source_K]
        left, used = self._left_NW[trial_K, column_K], self._used_NW[trial_K, column_K]
        self._left_NW, self._used_NW = (np.zeros((num_trials, width), dtype=np.int64) for _ in range(2))
        self._left_NW[new_trial_K, new_column_K] = left
        self._used_NW[new_trial_K, new_column_K] = used
        self._length = length
        self._seen_RL = _seen(self._fields_FR[POSITION], length, room)
        if not keep_N.all():
            self._trials_N, self._next_N = self._trials_N[keep_N], self._next_N[keep_N]
            self._state = frozen(self._whole_state, self._trials_N.tolist(), self._model.base.dtype)

    # What the model does -----------------------------------------------------------------------------------------

    def _read(self, new_N: np.ndarray) -> np.ndarray:
        """Read some of each trial's new prompts into idle rows; return how many of them are left."""
        longest = int(self._lengths_M[self._next_N[new_N > 0]].max())
        now_N = np.minimum(new_N, max(1, READ_TOKENS // (longest * len(new_N))))
        columns = np.arange(now_N.max())
        real_NW = columns < now_N[:, None]
        trial_K, _ = np.nonzero(real_NW)
        prompt_K = (self._next_N[:, None] + columns)[real_NW]
        ids_RT = np.full((real_NW.size, longest), self._pad_id)
        mask_RT = np.zeros_like(ids_RT)
        source_K = np.flatnonzero(real_NW)
        for row, prompt in zip(source_K, prompt_K, strict=True):
            length = self._lengths_M[prompt]
            ids_RT[row, longest - length :] = self._prompts[prompt]
            mask_RT[row, longest - length :] = 1
        part = caches.empty_cache()
        positions_RT = (mask_RT.cumsum(1) - 1).clip(min=0)
        source, ids, mask, positions = (self._tensor(array) for array in (source_K, ids_RT, mask_RT, positions_RT))
        next_K = self._next_tokens(ids, mask, positions, part).index_select(0, source)
        self._join(trial_K, prompt_K, part, source, next_K)
        self._next_N += now_N
        return new_N - now_N

    def _join(self, trial_K: np.ndarray, prompt_K: np.ndarray, part: Cache, source_K: Tensor, next_K: Tensor) -> None:
        """Give rows of a part, whose prompts were just read, an idle place in the block."""
        rank_K = np.arange(len(trial_K)) - np.searchsorted(trial_K, trial_K)
        column_K = np.argsort(self._left_NW > 0, axis=1, kind="stable")[trial_K, rank_K]  # idle ones first
        num_trials, width = self._left_NW.shape
        target_K = self._tensor(trial_K * width + column_K)
        num_rows, room = num_trials * width, self._seen_RL.shape[1]
        if self._cache is None:
            self._cache = caches.like(part, num_rows, self._length, room)
        caches.insert(self._cache, part, source_K, target_K)
        length_K, limit_K = self._lengths_M[prompt_K], self._limits_M[prompt_K]
        place_K = self._trials_N[trial_K] * len(self._prompts) + prompt_K
        none_K = np.zeros_like(place_K)
        fields_FK = self._tensor(np.stack([place_K, none_K, limit_K, length_K - 1, none_K]))
        self._take(fields_FK, next_K)
        self._fields_FR[:, target_K] = fields_FK
        self._seen_RL[target_K] = _seen(fields_FK[POSITION], self._length, room)
        self._left_NW[trial_K, column_K], self._used_NW[trial_K, column_K] = limit_K - 1, length_K

    def _write(self, steps: int) -> None:
        """Generate the next tokens of all rows."""
        assert self._cache is not None
        for _ in range(steps):
            self._length += 1
            ids_RT, positions_RT = self._fields_FR[TOKEN, :, None], self._fields_FR[POSITION, :, None]
            next_R = self._next_tokens(ids_RT, self._seen_RL[:, : self._length], positions_RT, self._cache)
            self._take(self._fields_FR, next_R)
        self._used_NW += steps
        self._left_NW = np.maximum(self._left_NW - steps, 0)

    @contextmanager
    def _ready(self) -> Iterator[None]:
        network = self._model.base.model
        with torch.no_grad(), self._model.bound(self._state), attention.fast(network):
            yield

    def _next_tokens(self, ids_RT: Tensor, mask_RL: Tensor, positions_RT: Tensor, cache: Cache) -> Tensor:
        base = self._model.base
        inputs = {
            "input_ids": ids_RT,
            "attention_mask": mask_RL,
            "position_ids": positions_RT,
            "past_key_values": cache,
            "use_cache": True,
        }
        if not base.head_is_split:
            return base.model(**inputs, logits_to_keep=1).logits[:, -1].argmax(-1)
        last_RF = base.decoder(**inputs).last_hidden_state[:, -1]
        # Contiguous: behind a slice PyTorch copies the head's weight once for each row (measured on a CPU, SmolLM2-135M
        # in bfloat16: nearly half the time of reading 64 prompts of 65 tokens).
        return base.head(last_RF.contiguous()).argmax(-1)

    def _take(self, fields_FR: Tensor, next_R: Tensor) -> None:
        """Write down the rows' next tokens; a row is open while its count is below its limit."""
        place_R, count_R, limit_R, position_R, token_R = fields_FR
        open_R = count_R < limit_R
        last_place, last_count = (size - 1 for size in self._answers_AT.shape)
        index = (place_R.masked_fill(~open_R, last_place), count_R.masked_fill(~open_R, last_count))
        self._answers_AT[index] = next_R
        count_R += open_R
        limit_R.copy_(torch.where(open_R & (next_R == self._end_id), count_R, limit_R))
        token_R.copy_(next_R)
        position_R += 1
        position_R.clamp_(max=self._last_position)

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array.astype(np.int64)).to(self._model.base.device)


def _seen(position_R: Tensor, length: int, room: int) -> Tensor:
    """Return which positions of a block a row sees, [R, L]: its own that are in use, and all that come."""
    return torch.arange(room, device=position_R.device) >= length - position_R[:, None]
