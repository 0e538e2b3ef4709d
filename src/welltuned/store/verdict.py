"""The stored verdict as text: a comparison to JSON and back, to the bit."""

import dataclasses
import json
from typing import Any

from welltuned.records import Comparison, Forgetting, Pair


def encode(comparison: Comparison) -> str:
    """Return a comparison as JSON; a number that is not finite is refused."""
    return json.dumps(dataclasses.asdict(comparison), sort_keys=True, allow_nan=False)


def decode(text: str) -> Comparison:
    """Read back what `encode` wrote."""
    return of_fields(json.loads(text))


def of_fields(fields: dict[str, Any]) -> Comparison:
    """Return the comparison of these JSON fields."""
    pairs = tuple(Pair(**pair) for pair in fields["pairs"])
    forgetting = tuple(Forgetting(**row) for row in fields["forgetting"])
    return Comparison(**(fields | {"pairs": pairs, "forgetting": forgetting}))
