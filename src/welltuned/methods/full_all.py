"""Full fine-tuning of all weights: embeddings, norms, biases and head, too, one trial at a time.

What most papers mean by "full fine-tuning"; `full` trains the adapted sites only, side by side with other trials. Each
parameter is W + dW with a trained dW (packing/whole.py), so that the base is shared and never written; a tied one has
one dW. Weight decay acts on W + dW of matrices, not on norms and biases, as in transformers' Trainer.
"""

from __future__ import annotations

import dataclasses

from welltuned.methods import full
from welltuned.methods._method import Parametrisation

NOT_DECAYED = "none"


def _shape(name: str, num_out: int, num_in: int, rank: int) -> tuple[int, ...]:
    del rank
    return (num_out, num_in) if name == "dW" else (num_out,)


def parametrisation() -> Parametrisation:
    """Return the parametrisation of a whole model: dW of matrices, dv of vectors."""
    return dataclasses.replace(
        full.parametrisation(),
        name="whole",
        trained=("dW", "dv"),
        shape=_shape,
        decayed={"dW": "base", "dv": NOT_DECAYED},
        whole=True,
    )


METHOD = dataclasses.replace(
    full.METHOD,
    summary="Full fine-tuning of all weights: embeddings, norms and head, too",
    formula="every parameter is W + dW;  dW = 0; one trial at a time",
    parametrisation=parametrisation,
    trains="dW of every parameter",
    advice="about a tenth of LoRA's (LoRA Without Regret, 2025), as full's",
)
