"""How an example's prompt is put to the model: as it is, or within the Alpaca instruction prompt."""

from welltuned.errors import InputError, suggestion
from welltuned.tasks._task import Example

# Taori et al. 2023 (Stanford Alpaca), as used by PiSSA (arXiv 2404.02948) and "Learning Rate Matters" (arXiv
# 2602.04998), whose target is "{output}\n" and the end mark.
ALPACA = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request."
    "\n\n### Instruction:\n{instruction}\n\n### Response:"
)
TEMPLATES = ("none", "alpaca")


def render(template: str, example: Example) -> tuple[str, str]:
    """Return the texts of prompt and completion; "none" leaves both exactly as the task wrote them."""
    if template == "none":
        return example.prompt, example.completion
    if template == "alpaca":
        return ALPACA.replace("{instruction}", example.prompt.strip()), example.completion.strip() + "\n"
    raise InputError(f"prompt_template: got {template!r}, expected one of these; {suggestion(template, TEMPLATES)}")
