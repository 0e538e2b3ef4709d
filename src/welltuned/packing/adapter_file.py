"""One trial's adapter as a safetensors file: trained tensors and anchors by site, and, where asked, the moments.

A tensor is called "site:name". What all sites share is stored once, and the metadata say which part of it each site
has. Moments are called "moment1/site:name"; reading the adapter alone does not read them.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from welltuned import plugins
from welltuned.methods._method import State
from welltuned.records import Config, Role, Trial
from welltuned.store import blobs

MOMENTS = ("moment1/", "moment2/")
SHARED = "shared/"


class Moments(NamedTuple):
    """What an optimizer knows of a trial after `num_steps` steps: first and second moments by site."""

    num_steps: int
    first: dict[str, State]
    second: dict[str, State]


def save(folder: str, trial: Trial, states: dict[str, State], moments: Moments | None = None) -> str:
    """Write one trial's adapter among the blobs of a study and return the blob's name."""
    shared_names = plugins.load("methods", trial.config.method).parametrisation().shared
    own = {(site, name): tensor.cpu() for site, state in states.items() for name, tensor in state.items()}
    tensors = {f"{site}:{name}": tensor for (site, name), tensor in own.items() if name not in shared_names}
    note: dict[str, Any] = {"config": trial.config.text(), "role": trial.role}
    if shared_names:
        parts = {key: tensor for key, tensor in own.items() if key[1] in shared_names}
        once, note["shared"] = _stored_once(parts)
        tensors |= once
    if moments is not None:
        note["num_steps"] = moments.num_steps
        for prefix, found in zip(MOMENTS, moments[1:], strict=True):
            tensors |= {f"{prefix}{site}:{name}": t.cpu() for site, state in found.items() for name, t in state.items()}
    metadata = {"welltuned": json.dumps(note, allow_nan=False)}
    return blobs.write(Path(folder), lambda path: save_file(tensors, path, metadata))


def load(path: Path, device: str = "cpu") -> tuple[Trial, dict[str, State]]:
    """Read one trial's adapter: its trial and its tensors by site."""
    with safe_open(path, framework="pt", device=device) as file:
        note = json.loads(file.metadata()["welltuned"])
        tensors = {key: file.get_tensor(key) for key in file.keys() if not key.startswith(MOMENTS)}  # noqa: SIM118
    for key, (stored, shape) in note.get("shared", {}).items():
        tensors[key] = tensors[stored][_first(shape)]
    states = _by_site({key: tensor for key, tensor in tensors.items() if not key.startswith(SHARED)})
    return Trial(Config.parse(note["config"]), Role(note["role"])), states


def load_moments(path: Path) -> Moments:
    """Read the moments of an adapter that was stored with them."""
    with safe_open(path, framework="pt") as file:
        note = json.loads(file.metadata()["welltuned"])
        first, second = (
            _by_site({key.removeprefix(prefix): file.get_tensor(key) for key in _keys(file, prefix)})
            for prefix in MOMENTS
        )
    return Moments(note["num_steps"], first, second)


def num_steps(path: Path) -> int | None:
    """Return after how many steps the moments were stored; None where they were not."""
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["welltuned"]).get("num_steps")


def _keys(file: Any, prefix: str) -> Iterator[str]:
    return (key for key in file.keys() if key.startswith(prefix))  # noqa: SIM118 (it is no dict)


def _by_site(tensors: dict[str, Tensor]) -> dict[str, State]:
    states: dict[str, State] = {}
    for key, tensor in tensors.items():
        site, _, name = key.rpartition(":")
        states.setdefault(site, {})[name] = tensor
    return states


def _stored_once(parts: dict[tuple[str, str], Tensor]) -> tuple[dict[str, Tensor], dict[str, tuple[str, list[int]]]]:
    """Return the tensors that the others are the first rows and columns of, and for each which, and of what shape."""
    stored: dict[str, Tensor] = {}
    places: dict[str, tuple[str, list[int]]] = {}
    for (site, name), tensor in sorted(parts.items(), key=lambda item: -item[1].numel()):
        held = (key for key, whole in stored.items() if key.startswith(f"{SHARED}{name}") and _is_part(tensor, whole))
        key = next(held, f"{SHARED}{name}{len(stored)}")
        stored.setdefault(key, tensor.contiguous())
        places[f"{site}:{name}"] = key, list(tensor.shape)
    return stored, places


def _is_part(tensor: Tensor, whole: Tensor) -> bool:
    fits = all(size <= larger for size, larger in zip(tensor.shape, whole.shape, strict=True))
    return fits and torch.equal(tensor, whole[_first(tensor.shape)])


def _first(shape: Any) -> tuple[slice, ...]:
    return tuple(slice(size) for size in shape)
