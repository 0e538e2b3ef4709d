"""Examples to token rows: [bos] prompt + completion + eos, where only the completion and eos are targets.

Prompt and completion are tokenised separately, so that the prompt's tokens are the same in training and in generation,
whatever follows. The joined row may therefore differ from the tokens of the joined text at the one seam; it always
decodes to the same text with a tokenizer that is reversible (one that marks the start of a text with a space adds that
at the seam).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from welltuned.data.templates import render
from welltuned.errors import InputError
from welltuned.tasks._task import Example


@dataclass(frozen=True)
class Rows:
    """Token rows of a split: the loss is on positions >= prompt_lengths[i] of token_ids[i]."""

    token_ids: tuple[np.ndarray, ...]  # int64
    prompt_lengths: np.ndarray  # int64, at least 1 each
    examples: tuple[Example, ...]  # as the task gave them, before the prompt template
    num_truncated: int  # rows that lost the end of their completion, at least its end mark, to max_length
    num_dropped: int  # rows that are absent here, since nothing of a completion was left

    @staticmethod
    def join(parts: Sequence["Rows"]) -> "Rows":
        """Put parts of a split one after another."""
        return Rows(
            token_ids=tuple(ids for part in parts for ids in part.token_ids),
            prompt_lengths=np.array([length for part in parts for length in part.prompt_lengths], dtype=np.int64),
            examples=tuple(example for part in parts for example in part.examples),
            num_truncated=sum(part.num_truncated for part in parts),
            num_dropped=sum(part.num_dropped for part in parts),
        )


def encode(examples: Sequence[Example], tokenizer, template: str, max_length: int, what: str = "data") -> Rows:
    """Tokenise examples; a row is cut at `max_length` tokens on the right, and has its end mark only where whole."""
    eos = tokenizer.eos_token_id
    if eos is None:
        raise InputError(
            "tokenizer: got no end-of-text token, expected eos_token in tokenizer_config.json; add it there"
        )
    rendered = [render(template, example) for example in examples]
    prompts = encode_prompts([prompt for prompt, _ in rendered], tokenizer, what)
    completions = _plain([completion for _, completion in rendered], tokenizer)
    token_ids: list[np.ndarray] = []
    prompt_lengths: list[int] = []
    kept: list[Example] = []
    num_truncated = 0
    for example, prompt, completion in zip(examples, prompts, completions, strict=True):
        if not example.completion.strip() or not completion or len(prompt) >= max_length:
            continue
        whole = [*prompt, *completion, eos]
        num_truncated += len(whole) > max_length
        token_ids.append(np.array(whole[:max_length], dtype=np.int64))
        prompt_lengths.append(len(prompt))
        kept.append(example)
    lengths = np.array(prompt_lengths, dtype=np.int64)
    return Rows(tuple(token_ids), lengths, tuple(kept), num_truncated, len(examples) - len(kept))


def encode_prompts(prompts: Sequence[str], tokenizer, what: str = "data") -> list[list[int]]:
    """Tokenise prompts, each after the beginning-of-text token where the tokenizer adds one by default."""
    bos = tokenizer.bos_token_id
    start = [bos] if bos is not None and tokenizer("a")["input_ids"][:1] == [bos] else []
    token_ids = [start + ids for ids in _plain(prompts, tokenizer)]
    for number, ids in enumerate(token_ids, 1):
        if not ids:
            raise InputError(
                f"{what}: the prompt of row {number} is empty and the tokenizer adds no start token, expected a prompt "
                "to predict from; remove such rows or set prompt_template"
            )
    return token_ids


def _plain(texts: Sequence[str], tokenizer) -> list[list[int]]:
    """Tokenise without special tokens; an empty list stays one (tokenizers refuse an empty batch)."""
    if not texts:
        return []
    return tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
