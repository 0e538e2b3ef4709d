"""GSM8K (Cobbe et al. 2021): grade-school word problems; rows with `question` and `answer`, which ends in `#### n`.

The prompt is the question on a line of its own, as in the authors' code. The completion is the written solution without
its calculator annotations (`<<16-3=13>>`, a tool that is not there when the answer is generated) and with the last line
as "The answer is: n", as in MetaMathQA: words every base model knows, and one format for all tasks with numbers.
"""

import re
from collections.abc import Mapping

from welltuned.tasks._numbers import MARK, extract, grade, number
from welltuned.tasks._task import Example, Task
from welltuned.tasks._text import prompt_of, text_of

_ANNOTATION = re.compile(r"<<[^<>]*>>")


def read_row(row: Mapping[str, object]) -> Example:
    """Read `question` and `answer`."""
    answer = text_of(row, "answer")
    solution, mark, last = answer.rpartition("####")
    value = number(last) if mark else None
    if value is None:
        raise ValueError("column 'answer' does not end in '#### n' with a number n")
    steps = "\n".join(line.strip() for line in _ANNOTATION.sub("", solution).strip().split("\n"))
    shown = last.strip()
    return Example(prompt_of(row, "question"), f"{steps}\n{MARK} {shown}".lstrip("\n"), value)


TASK = Task(
    summary="GSM8K word problems (question, answer), graded by the exact number after the last answer mark",
    version=1,
    max_new_tokens=300,  # measured: 99.9 % of the training solutions have at most 287 tokens of SmolLM2's
    read_row=read_row,
    extract=extract,
    grade=grade,
)
