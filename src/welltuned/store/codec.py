"""Events as rows: what must repeat to the bit stands in `body`, what the clock decides in `measured`.

A resumed pack emits again what it emitted between its last checkpoint and the kill. Such a repeat must be recognised
(by `identity`) and must agree (by `body`); its seconds and peak memory differ, of course, and the first reading stays.
"""

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, cast

from welltuned import records
from welltuned.errors import StoreError, WelltunedError
from welltuned.records import Event

# Fields that differ between two identical runs. A checkpoint holds the seconds so far, hence its name differs too.
MEASURED = {
    "Checkpoint": ("blob",),
    "Outcome": ("seconds", "pack_seconds"),
    "Graded": ("seconds",),
    "JobEnd": ("seconds", "peak_bytes", "environment"),
}
KINDS: dict[str, type] = {
    kind.__name__: kind
    for kind in (
        records.Survey,
        records.Point,
        records.Checkpoint,
        records.Outcome,
        records.Graded,
        records.Retained,
        records.JobEnd,
        records.JobLost,
    )
}


class DifferingEvent(StoreError):
    """A resumed pack did not repeat its own numbers: what it said before the kill differs from what it says now."""


@dataclass(frozen=True)
class Row:
    """An event as it is stored."""

    kind: str
    identity: str  # unique within (job, kind)
    body: str  # JSON
    measured: str  # JSON


def identity_of(event: Event) -> str:
    """Return what makes an event this one and no other among those of its job and kind."""
    match event:
        case records.Point():
            return f"{event.trial_id}/{event.step}"
        case records.Checkpoint():
            return str(event.micro_step)
        case records.Outcome():
            return event.trial_id
        case records.Graded():
            return f"{event.trial_id}/{event.split}"
        case records.Retained():
            return f"{event.trial_id}/{event.text_hash}"
        case records.Progress():
            raise WelltunedError("Progress is for the screen and is never stored; this is a defect of welltuned")
        case records.Survey() | records.JobEnd() | records.JobLost():
            return ""


def encode(event: Event) -> Row:
    """Turn an event into a row; a number that is not finite is refused, since missing is None here."""
    kind = type(event).__name__
    identity = identity_of(event)
    fields = dataclasses.asdict(event)
    measured = {name: fields.pop(name) for name in MEASURED.get(kind, ())}
    try:
        return Row(kind, identity, _json(fields), _json(measured))
    except ValueError as error:
        raise WelltunedError(
            f"event {kind} {identity}: got a number that is not finite, expected a finite one or None with a reason; "
            "this is a defect of welltuned or of the plug-in that made it, please report it"
        ) from error


def decode(kind: str, body: str, measured: str) -> Event:
    """Rebuild the event of a row, to the bit."""
    fields: dict[str, Any] = {**json.loads(body), **json.loads(measured)}
    values: dict[str, Any] = {
        name: tuple(cast("list[Any]", value)) if isinstance(value, list) else value for name, value in fields.items()
    }
    if kind == "Survey":
        values["sites"] = tuple(records.Site(**site) for site in fields["sites"])
    if kind == "Outcome":
        values["status"] = records.Status(fields["status"])
    return KINDS[kind](**values)


def _json(fields: dict[str, Any]) -> str:
    return json.dumps(fields, sort_keys=True, allow_nan=False)
