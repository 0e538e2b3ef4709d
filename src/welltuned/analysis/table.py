"""Results as a table with one row a trial: what results.csv and a notebook's DataFrame hold."""

import dataclasses
from collections.abc import Sequence

from welltuned.records import Result

Value = str | int | float | bool | None


def trial_rows(results: Sequence[Result]) -> list[dict[str, Value]]:
    """Return one flat row for each trial: its outcome, then every field of its configuration. Missing is None."""
    graded = any(result.test_correct is not None for result in results)
    return [_row(result, graded) for result in results]


def _row(result: Result, graded: bool) -> dict[str, Value]:
    row: dict[str, Value] = {
        "trial_id": result.trial_id,
        "role": result.role.value,
        "status": result.status.value,
        "reason": result.reason,
        "validation_nll": result.validation_nll,
        "base_validation_nll": result.base_validation_nll,
        "test_accuracy": result.test_accuracy if graded else None,
        "num_test_items": None if result.test_correct is None else len(result.test_correct),
        "num_steps": result.num_steps,
        "num_tokens": result.num_tokens,
        "seconds": result.seconds,
        "pack_id": result.pack_id,
        "num_pack": result.num_pack,
        "clip_fraction": result.clip_fraction,
        "num_trainable": result.num_trainable,
        "adapter": result.adapter,
    }
    for field in dataclasses.fields(result.config):
        value = getattr(result.config, field.name)
        row[field.name] = " ".join(value) if isinstance(value, tuple) else value
    return row
