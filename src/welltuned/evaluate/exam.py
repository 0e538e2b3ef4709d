"""Grading: generate each trial's answers to a split's prompts, packed, and grade them with the task."""

from collections.abc import Iterator

import numpy as np

from welltuned import plugins
from welltuned.data import Rows
from welltuned.evaluate.generate import greedy
from welltuned.packing.linear import PackedModel
from welltuned.packing.state import PackState
from welltuned.records import Graded, Trial
from welltuned.tasks._task import Task

PROMPTS_AT_A_TIME = 256  # between signs of life; as many as a block of one trial may well have; assumed


def answers(
    model: PackedModel, state: PackState, rows: Rows, task: Task, pad_id: int
) -> Iterator[list[list[list[int]]]]:
    """Yield the generated ids for `PROMPTS_AT_A_TIME` prompts after another, as [trial][prompt]."""
    prompts = [np.asarray(ids[:length]) for ids, length in zip(rows.token_ids, rows.prompt_lengths, strict=True)]
    end_id = model.base.tokenizer.eos_token_id
    for first in range(0, len(prompts), PROMPTS_AT_A_TIME):
        part = prompts[first : first + PROMPTS_AT_A_TIME]
        yield greedy(model, state, part, task.max_new_tokens, end_id, pad_id)


def grade(trial: Trial, split: str, generated: list[list[int]], rows: Rows, tokenizer, seconds: float) -> Graded:
    """Grade one trial's generated answers, in the split's order."""
    task: Task = plugins.load("tasks", trial.config.task)
    assert task.grade is not None
    texts = tokenizer.batch_decode(generated, skip_special_tokens=True)
    correct = tuple(bool(task.grade(text, example)) for text, example in zip(texts, rows.examples, strict=True))
    return Graded(trial.id, split, correct, sum(len(ids) for ids in generated), seconds)
