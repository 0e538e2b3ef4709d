"""What a micro-step reads: the rows of all trials as lines [L, S], and the flat list of their target positions.

Where the base reads lines (models/unpadded.py), a trial has one line that holds its rows one behind the other; else
each row is a line of its own, padded on the right, where causal attention never lets a real token see padding.
Shape letters: N trials, M rows of a trial, L lines (N, or N x M), W rows of a line, S token slots of a line, T tokens
of a row, K target positions of all rows, trial-major.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from welltuned.models.unpadded import Places
from welltuned.packing.batch import RowTable, moved

# Lines, and rows within them, have a multiple of so many slots: few sizes, since the first product of a size costs a
# millisecond and more. Measured: 8 to 32 are alike, and take a tenth less time than lines of any length.
MULTIPLE = 16


@dataclass(frozen=True)
class Size:
    """How long the lines of a micro-step are, and the rows in them."""

    num_slots: int  # S
    num_tokens: int  # T


@dataclass(frozen=True)
class Lines:
    """Rows as a model reads them, and where their targets are."""

    ids_LS: Tensor
    row_LS: Tensor  # which of its trial's rows a slot belongs to
    position_LS: Tensor  # of the token in its row
    places: Places | None  # of lines that hold several rows
    positions_K: Tensor  # flat index (l * S + s) of the slot that predicts the target
    targets_K: Tensor
    trial_K: Tensor

    @property
    def told_LS(self) -> Tensor | None:
        """Return the positions that a model must be told; those of a padded row it counts itself."""
        return None if self.places is None else self.position_LS


def needed(table: RowTable, rows: Sequence[np.ndarray], joined: bool) -> Size:
    """Return the size that the longest line and the longest row of a micro-step take."""
    num_tokens = int(table.lengths[np.concatenate(rows)].max())
    if not joined:
        return Size(num_tokens, num_tokens)
    longest = max(int(table.lengths[own].sum()) for own in rows)
    num_slots, num_tokens = (-(-length // MULTIPLE) * MULTIPLE for length in (longest, num_tokens))
    return Size(num_slots, num_tokens)


def gather(table: RowTable, rows: Sequence[np.ndarray], width: int, size: Size, joined: bool) -> Lines:
    """Gather N lists of at most `width` rows each, which `joined` puts one behind the other.

    Slots without a token stand for the first token of their line; a line without rows stands for the table's first row.
    """
    num_trials = len(rows)
    row_NM = np.zeros((num_trials, width), dtype=np.int64)
    length_NM = np.zeros((num_trials, width), dtype=np.int64)
    for trial, part in enumerate(rows):
        row_NM[trial, : len(part)] = part
        length_NM[trial, : len(part)] = table.lengths[part]
    shape = (num_trials, width) if joined else (num_trials * width, 1)
    row_LW, length_LW = row_NM.reshape(shape), length_NM.reshape(shape)
    end_LW = np.cumsum(length_LW, axis=1)
    slot_S = np.arange(size.num_slots)
    taken_LS = slot_S < end_LW[:, -1:]
    own_LS = np.where(taken_LS, (slot_S[None, :, None] >= end_LW[:, None]).sum(axis=2), 0)
    position_LS = np.where(taken_LS, slot_S - np.take_along_axis(end_LW - length_LW, own_LS, axis=1), 0)
    table_row_LS = np.take_along_axis(row_LW, own_LS, axis=1)
    ids_LS = table.ids[table_row_LS, position_LS]
    is_target_LS = taken_LS & (position_LS >= np.maximum(table.prompt_lengths[table_row_LS], 1))
    line_K, slot_K = np.nonzero(is_target_LS)
    lines_each = shape[0] // num_trials
    row_LS = own_LS if joined else np.tile(np.arange(width), num_trials)[:, None].repeat(size.num_slots, axis=1)
    arrays = [ids_LS, row_LS, position_LS]
    arrays += [line_K * size.num_slots + slot_K - 1, ids_LS[line_K, slot_K], line_K // lines_each]
    ids, row, position, *targets = (moved(array, table.device) for array in arrays)
    places = _places(length_LW, size, own_LS, position_LS, taken_LS, table) if joined else None
    return Lines(ids, row, position, places, *targets)


def _places(
    length_LW: np.ndarray,
    size: Size,
    own_LS: np.ndarray,
    position_LS: np.ndarray,
    taken_LS: np.ndarray,
    table: RowTable,
) -> Places:
    """Return the way from the slots of lines to rows [L W, T] and back."""
    num_lines, width = length_LW.shape
    start_LW = np.cumsum(length_LW, axis=1) - length_LW
    place_T = np.arange(size.num_tokens)
    token_LWT = place_T < length_LW[..., None]
    slot_LWT = np.where(token_LWT, start_LW[..., None] + place_T, 0)
    slot_LWT += size.num_slots * np.arange(num_lines)[:, None, None]
    row_LS = (np.arange(num_lines)[:, None] * width + own_LS) * size.num_tokens + position_LS
    shape = (num_lines * width, size.num_tokens)
    arrays = (slot_LWT.reshape(shape), token_LWT.reshape(shape), row_LS, taken_LS)
    return Places(*(moved(array, table.device) for array in arrays))
