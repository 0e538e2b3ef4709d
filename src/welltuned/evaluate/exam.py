"""Grading: generate each trial's answers to a split's prompts, packed, and grade them with the task."""

import time
from collections.abc import Iterator

import numpy as np

from welltuned import plugins
from welltuned.data import Rows
from welltuned.evaluate.generate import Generation
from welltuned.packing.linear import PackedModel
from welltuned.packing.state import PackState
from welltuned.records import Graded, Trial
from welltuned.tasks._task import Task

PROGRESS_SECONDS = 0.5  # between signs of life, as in training; assumed


def prepare(model: PackedModel, state: PackState, rows: Rows, task: Task, pad_id: int) -> Generation:
    """Return the generation of all trials' answers to a split's prompts, not begun."""
    prompts = [np.asarray(ids[:length]) for ids, length in zip(rows.token_ids, rows.prompt_lengths, strict=True)]
    end_id = model.base.tokenizer.eos_token_id
    return Generation(model, state, prompts, task.max_new_tokens, end_id, pad_id)


def progress(generation: Generation) -> Iterator[tuple[float, float]]:
    """Generate to the end; yield now and then which share is done, and the tokens generated per second."""
    started = shown = time.monotonic()
    for _ in generation.run():
        now = time.monotonic()
        if now - shown > PROGRESS_SECONDS:
            shown = now
            yield generation.share, generation.num_tokens / (now - started)


def grade(trial: Trial, split: str, generated: list[list[int]], rows: Rows, tokenizer, seconds: float) -> Graded:
    """Grade one trial's generated answers, in the split's order."""
    task: Task = plugins.load("tasks", trial.config.task)
    assert task.grade is not None
    texts = tokenizer.batch_decode(generated, skip_special_tokens=True)
    correct = tuple(bool(task.grade(text, example)) for text, example in zip(texts, rows.examples, strict=True))
    return Graded(trial.id, split, correct, sum(len(ids) for ids in generated), seconds)
