"""MetaMathQA (Yu et al. 2023): rows with `query` and `response`, which ends in "The answer is: x".

An answer that is a number is compared by value. Any other (LaTeX, text) is compared as text up to white space, dollar
signs, \\left and \\right, \\dfrac for \\frac and a final period: two spellings of one formula that differ in more count
as different.
"""

import re
from collections.abc import Mapping

from welltuned.tasks._numbers import after_mark, number
from welltuned.tasks._task import Example, Task
from welltuned.tasks._text import prompt_of, text_of

_NUMBER_ONLY = re.compile(r"[-\u2212+$\\\s]*[0-9][0-9,. /%]*")
_NO_MEANING = re.compile(r"\\left|\\right|\\!|\\,|\\;|\\\$|\$|\s")


def canonical(answer: str) -> str | None:
    """Return one spelling for equal answers; None for an empty one."""
    line = answer.strip().split("\n")[0].strip()
    if _NUMBER_ONLY.fullmatch(line):
        return number(line)
    text = _NO_MEANING.sub("", line).replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac").rstrip(".")
    return text or None


def extract(text: str) -> str | None:
    """Find the answer on the line after the last answer mark; None where there is none."""
    tail = after_mark(text)
    return None if tail is None else canonical(tail)


def grade(text: str, example: Example) -> bool:
    """Judge generated text by its answer; without an answer it is wrong."""
    if example.answer is None:
        raise ValueError("this example has no answer to grade against: its response has no 'The answer is:'")
    return extract(text) == canonical(example.answer)


def read_row(row: Mapping[str, object]) -> Example:
    """Read `query` and `response`."""
    response = text_of(row, "response").strip()
    return Example(prompt_of(row, "query"), response, extract(response))


TASK = Task(
    summary="MetaMathQA (query, response), graded by the answer after the last 'The answer is:'",
    version=1,
    max_new_tokens=512,  # assumed: the length that PiSSA and MetaMath's own training allow for prompt and response
    read_row=read_row,
    extract=extract,
    grade=grade,
)
