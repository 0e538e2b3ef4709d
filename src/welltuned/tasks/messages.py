"""Conversations: rows with `messages` (role, content: OpenAI) or `conversations` (from, value: ShareGPT).

The last turn of the assistant is the completion, and the turns before it are the prompt: a single question as it is,
anything longer with one line of "User:", "Assistant:" or "System:" a turn. The tokenizer's chat template is not used,
so base models without one read the same text. Judged by validation loss only.
"""

from collections.abc import Mapping, Sequence
from typing import cast

from welltuned.tasks._task import Example, Task
from welltuned.tasks._text import text_of

ROLES = {
    "user": "User",
    "human": "User",
    "assistant": "Assistant",
    "gpt": "Assistant",
    "model": "Assistant",
    "system": "System",
    "developer": "System",
    "tool": "Tool",
    "function": "Tool",
    "observation": "Tool",
}


def _turn(turn: object, role_key: str, text_key: str) -> tuple[str, str]:
    if not isinstance(turn, Mapping):
        raise ValueError(f"a turn is a {type(turn).__name__}, expected an object with '{role_key}' and '{text_key}'")
    fields = cast("Mapping[str, object]", turn)
    role = fields.get(role_key)
    if not isinstance(role, str) or role not in ROLES:
        raise ValueError(f"a turn has {role_key} {role!r}, expected one of {', '.join(ROLES)}")
    content = fields.get(text_key)
    if isinstance(content, list):
        parts = cast("list[object]", content)
        texts = [_part(part) for part in parts]
        return ROLES[role], "".join(texts).strip()
    return ROLES[role], text_of(fields, text_key, required=False).strip()


def _part(part: object) -> str:
    fields = cast("Mapping[str, object]", part if isinstance(part, Mapping) else {})
    if fields.get("type") != "text":
        raise ValueError(f"a turn has a part of type {fields.get('type')!r}, expected text only")
    return text_of(fields, "text")


def read_row(row: Mapping[str, object]) -> Example:
    """Read `messages` or `conversations`."""
    column, role_key, text_key = "messages", "role", "content"
    if column not in row and "conversations" in row:
        column, role_key, text_key = "conversations", "from", "value"
    turns = row[column]
    if isinstance(turns, str) or not isinstance(turns, Sequence):
        raise ValueError(f"column '{column}' holds a {type(turns).__name__}, expected a list of turns")
    said = [_turn(turn, role_key, text_key) for turn in cast("Sequence[object]", turns)]
    last = max((index for index, (role, _) in enumerate(said) if role == "Assistant"), default=0)
    if last == 0:
        raise ValueError(f"column '{column}' has no assistant's turn after another, expected one to learn from")
    before = said[:last]
    single = len(before) == 1 and before[0][0] == "User"
    prompt = before[0][1] if single else "\n".join([*(f"{role}: {text}" for role, text in before), "Assistant:"])
    if single and not prompt:
        raise ValueError("the only turn before the assistant's is empty, expected a prompt")
    return Example(prompt + "\n", said[last][1])


TASK = Task(
    summary="conversations in OpenAI or ShareGPT form, trained on the last assistant turn; no grader",
    version=1,
    max_new_tokens=256,  # assumed
    read_row=read_row,
)
