"""What a task is: where its examples come from, how they read as text, and how an answer is graded. No torch here."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Example:
    """One prompt with its completion; `answer` is what a grader compares with, or None where nothing is graded."""

    prompt: str
    completion: str
    answer: str | None = None


@dataclass(frozen=True)
class Task:
    """A task plug-in.

    Exactly one of `generate` and `read_row` is set: a task makes its own examples, `generate(seed, split, index)`, or
    reads them from rows of the study's data, `read_row(row)`, which raises `KeyError` with the missing column's name.
    `extract(text)` finds the answer in generated text (None where there is none); `grade(text, example)` judges it.
    Both are None for a task that is judged by its validation loss only. `version` changes whenever a result could.
    """

    summary: str
    version: int
    max_new_tokens: int
    generate: Callable[[int, str, int], Example] | None = None
    read_row: Callable[[Mapping[str, object]], Example] | None = None
    extract: Callable[[str], str | None] | None = None
    grade: Callable[[str, Example], bool] | None = None
