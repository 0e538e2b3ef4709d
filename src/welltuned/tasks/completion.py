"""Any text: rows with `prompt` and `completion`, joined exactly as they are written; judged by validation loss only."""

from collections.abc import Mapping

from welltuned.tasks._task import Example, Task
from welltuned.tasks._text import text_of


def read_row(row: Mapping[str, object]) -> Example:
    """Read `prompt` and `completion`; where a space or line end belongs between them, the file has it."""
    prompt = text_of(row, "prompt")
    if not prompt.strip():
        raise ValueError("column 'prompt' is empty, expected a prompt")
    return Example(prompt, text_of(row, "completion"))


TASK = Task(
    summary="prompt and completion, joined as written; no grader",
    version=1,
    max_new_tokens=256,  # assumed
    read_row=read_row,
)
