"""What fine-tuning made a model forget: the loss on a text that is not the task's, of the base and of each adapter.

The text is cut into pieces of `max_length` tokens that do not overlap, and every token but a piece's first is a target.
A mean over its target tokens is what a language model is usually judged by; exp of it is the perplexity.
"""

from pathlib import Path

import numpy as np

from welltuned import fingerprint
from welltuned.data import Rows
from welltuned.errors import InputError, problem
from welltuned.evaluate.nll import validation_nll
from welltuned.packing.batch import RowTable
from welltuned.packing.linear import PackedModel
from welltuned.packing.state import PackState
from welltuned.records import Retained
from welltuned.tasks._task import Example


def rows_of(text: str, tokenizer, max_length: int) -> Rows:
    """Cut a text into token rows, each after the beginning-of-text token where the tokenizer adds one by default."""
    bos = tokenizer.bos_token_id
    start = [bos] if bos is not None and tokenizer("a")["input_ids"][:1] == [bos] else []
    token_ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    width = max_length - len(start)
    pieces = [start + token_ids[first : first + width] for first in range(0, len(token_ids), width)]
    pieces = [np.array(piece, dtype=np.int64) for piece in pieces if len(piece) > 1]
    return Rows(tuple(pieces), np.ones(len(pieces), dtype=np.int64), tuple(Example("", "") for _ in pieces), 0, 0)


def read(file: str) -> str:
    """Return the text of a file; one that is missing, not UTF-8 or blank is refused."""
    path = Path(file).expanduser()
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        line = problem("compare.retention", file, "a text file in UTF-8", f"choose another ({error})")
        raise InputError(line) from error
    if not text.strip():
        raise InputError(problem("compare.retention", file, "a text file with words in it", "choose another"))
    return text


def measure(
    model: PackedModel, state: PackState, trial_ids: tuple[str, ...], file: str, max_length: int, pad_id: int
) -> list[Retained]:
    """Return each trial's loss on the text, and the bare base's beside it; `trial_ids` in the order of the state."""
    rows = rows_of(read(file), model.base.tokenizer, max_length)
    table = RowTable(rows, pad_id, model.base.device)
    (base_nll,) = validation_nll(model, None, table)
    text_hash = fingerprint.file_hash(Path(file).expanduser())[:16]
    num_tokens = int(table.num_targets.sum())
    losses = validation_nll(model, state, table)
    return [
        Retained(trial_id, file, text_hash, num_tokens, base_nll, nll)
        for trial_id, nll in zip(trial_ids, losses, strict=True)
    ]
