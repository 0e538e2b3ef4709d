"""Methods: one LoRA method per file, which exports `METHOD` (see `_method.py`) and is known by its file name.

Method files load torch inside their functions only, so that `plan` can read versions and parameter counts without it.
What is named here is for method files outside welltuned (docs/add-a-method.md).
"""

from welltuned.methods._low_rank import anchored, num_trainable, plain
from welltuned.methods._method import Context, Frozen, Method, Parametrisation, State
from welltuned.methods._residual import anchored_state

__all__ = [
    "Context",
    "Frozen",
    "Method",
    "Parametrisation",
    "State",
    "anchored",
    "anchored_state",
    "num_trainable",
    "plain",
]
