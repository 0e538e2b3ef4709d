"""The stored verdict as text: a comparison to JSON and back, to the bit."""

import dataclasses
import json
from typing import Any

from welltuned.records import Best, Comparison, Forgetting, Pair


def encode(comparison: Comparison) -> str:
    """Return a comparison as JSON; a number that is not finite is refused."""
    return json.dumps(dataclasses.asdict(comparison), sort_keys=True, allow_nan=False)


def decode(text: str) -> Comparison:
    """Read back what `encode` wrote."""
    return of_fields(json.loads(text))


def of_fields(fields: dict[str, Any]) -> Comparison:
    """Return the comparison of these JSON fields."""
    return Comparison(
        baseline=fields["baseline"],
        pairs=tuple(Pair(**pair) for pair in fields["pairs"]),
        best=tuple(Best(**one) for one in fields["best"]),
        forgetting=tuple(Forgetting(**row) for row in fields["forgetting"]),
        inputs_hash=fields["inputs_hash"],
    )
