"""Instructions (Taori et al. 2023): rows with `instruction`, `output` and an optional `input`; not graded.

An input stands under "### Input:" after the instruction, which within prompt_template = "alpaca" gives the authors'
layout.
"""

from collections.abc import Mapping

from welltuned.tasks._task import Example, Task
from welltuned.tasks._text import prompt_of, text_of


def read_row(row: Mapping[str, object]) -> Example:
    """Read `instruction`, `input` (may be absent or empty) and `output`."""
    prompt = prompt_of(row, "instruction")
    given = text_of(row, "input", required=False).strip()
    if given:
        prompt = f"{prompt}\n### Input:\n{given}\n"
    return Example(prompt, text_of(row, "output").strip())


TASK = Task(
    summary="instruction, input and output; no grader",
    version=1,
    max_new_tokens=256,  # assumed
    read_row=read_row,
)
