"""A pack's whole state as a safetensors blob named by its content.

It holds every live trial's numbers, gradients and moments and all bookkeeping, so that a resumed pack
continues to the bit; anchors are not stored, since `init` makes them again from the base.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import safe_open
from safetensors.torch import load_file, save_file

from welltuned.errors import InputError
from welltuned.store import blobs

if TYPE_CHECKING:
    from welltuned.train.loop import PackRun

VERSION = 4  # of what a checkpoint means; 4: it says how rows of an effective batch were split into micro-steps
BUFFERS = ("flat_NP", "grad_NP", "moment1_NP", "moment2_NP")


def save(run: PackRun) -> str:
    """Write the state of a running pack and return the blob's name."""
    tensors = {
        f"{place}.{name}": vars(group)[name].contiguous()
        for place, group in enumerate(run.state.groups)
        for name in BUFFERS
    }
    note = {
        "version": VERSION,
        "job": run.job.id,
        "micro_step": run.micro_step,
        "joined": run.joined,
        "seconds": run.seconds,
        "live": [run.runners.index(runner) for runner in run.live],
        "runners": [runner.snapshot() for runner in run.runners],
    }
    metadata = {"welltuned": json.dumps(note, allow_nan=False)}
    return blobs.write(Path(run.runtime.blobs), lambda path: save_file(tensors, path, metadata))


def restore(run: PackRun, blob: str) -> None:
    """Take a pack, fresh from its job, to where the checkpoint left it."""
    path = blobs.path(Path(run.runtime.blobs), blob)
    note = _note(path)
    if note.get("version") != VERSION:
        raise InputError(
            f"checkpoint of pack {run.job.id}: got version {note.get('version', 1)}, expected {VERSION}, since an "
            "earlier release read rows in another order; finish the study with that release, or run it elsewhere"
        )
    if note["joined"] != run.joined:
        ways = {True: "one behind the other", False: "padded"}
        raise InputError(
            f"checkpoint of pack {run.job.id}: got rows that were read {ways[note['joined']]}, expected "
            f"{ways[run.joined]}, as the base reads them here; finish the study on the device and with the releases of "
            "torch and transformers that began it, or run it elsewhere"
        )
    assert note["job"] == run.job.id, f"checkpoint {blob} belongs to pack {note['job']}, not {run.job.id}"
    run.micro_step, run.seconds = note["micro_step"], note["seconds"]
    for runner, snapshot in zip(run.runners, note["runners"], strict=True):
        runner.restore(snapshot)
    run.take(note["live"])
    tensors = load_file(path, device=str(run.model.base.device))
    for place, group in enumerate(run.state.groups):
        for name in BUFFERS:
            vars(group)[name].copy_(tensors[f"{place}.{name}"])


def _note(path: Path) -> dict:
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["welltuned"])
