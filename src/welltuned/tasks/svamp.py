"""SVAMP (Patel et al. 2021): one-step word problems; rows with `Body`, `Question`, `Equation` and `Answer`.

Body and question are joined by a space, as in zero-shot chain-of-thought's code (Kojima et al. 2022). The completion is
the equation worked out, then "The answer is: n"; prompt and answer read as those of task gsm8k, so that a model trained
there can be graded here.
"""

import re
from collections.abc import Mapping

from welltuned.tasks._numbers import MARK, extract, grade, number
from welltuned.tasks._task import Example, Task
from welltuned.tasks._text import prompt_of, text_of

_WHOLE = re.compile(r"(?<![\d.])(\d+)\.0+(?!\d)")


def read_row(row: Mapping[str, object]) -> Example:
    """Read `Body`, `Question`, `Equation` and `Answer`."""
    question = f"{prompt_of(row, 'Body').strip()} {prompt_of(row, 'Question')}"
    answer = text_of(row, "Answer")
    value = number(answer)
    if value is None:
        raise ValueError("column 'Answer' holds no number")
    equation = _WHOLE.sub(r"\1", text_of(row, "Equation")).strip()
    if equation.startswith("( ") and equation.endswith(" )") and equation.count("(") == 1:
        equation = equation[2:-2]
    shown = _WHOLE.sub(r"\1", answer.strip())
    return Example(question, f"{equation} = {shown}\n{MARK} {shown}", value)


TASK = Task(
    summary="SVAMP one-step word problems (Body, Question, Equation, Answer), graded as GSM8K is",
    version=1,
    max_new_tokens=300,  # as gsm8k's, whose adapters are graded here
    read_row=read_row,
    extract=extract,
    grade=grade,
)
