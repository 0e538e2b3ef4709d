"""Starts that were computed before, from the user's cache: for methods whose start is a function of W, r and s alone.

PiSSA, MiLoRA and OLoRA decompose every weight for every pack: 13 s of one core on SmolLM2-135M (measured), and by the
cube of the size hours on a model of 7 billion (not measured). What they keep of it is of rank r, a few per cent of the
weight, and that is stored. A file is named by everything that decides its numbers to the bit: the weight's bytes, the
method and its code, rank and multiplier, torch, threads and instructions. Files hold the hash of their content; one
that does not match is computed again, and said. They are written whole or not at all, and the oldest are deleted.
"""

import contextlib
import hashlib
import json
import os
import platform
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from welltuned import fingerprint, methods
from welltuned.executors.machine import cache_folder
from welltuned.methods._method import Method, State

FEWEST_WEIGHTS = 1 << 18  # of a site; an SVD of fewer takes less than 0.05 s (measured, one core)
MOST_BYTES = 8 << 30  # of the folder; assumed: a hundred starts of a base of a billion weights at r = 16
SUFFIX = ".safetensors"


class Starts:
    """The starts at one site of a base; a trial with the same method, rank and multiplier has the same one."""

    def __init__(self, weight_OI: Tensor) -> None:
        self.weight_OI = weight_OI
        self.known: dict[str, State] = {}
        self.weight_hash: str | None = None

    def get(self, method: Method, facts: tuple[object, ...], compute: Callable[[], State]) -> State:
        """Return the start of a trial, computed where it is not known; `facts` are its method's name, rank, ..."""
        is_kept = method.deterministic and method.analyse is not None and not method.samples
        if not is_kept or self.weight_OI.numel() < FEWEST_WEIGHTS:
            return compute()
        name = self._name(facts)
        if name not in self.known:
            self.known[name] = _kept(cache_folder() / "starts" / name, self.weight_OI.device, compute)
        return self.known[name]

    def _name(self, facts: tuple[object, ...]) -> str:
        if self.weight_hash is None:
            content = _bytes(self.weight_OI)
            self.weight_hash = hashlib.sha256(content).hexdigest()
        where = (str(self.weight_OI.dtype), tuple(self.weight_OI.shape), *_machine(self.weight_OI.device))
        text = json.dumps([self.weight_hash, *where, _code(), *facts])
        return hashlib.sha256(text.encode()).hexdigest() + SUFFIX


def _machine(device: torch.device) -> tuple[object, ...]:
    """Return what the last bits of a decomposition depend on beside the numbers."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
    return torch.__version__, torch.get_num_threads(), platform.machine(), platform.processor(), name


def _code() -> str:
    """Return the hash of the methods' code."""
    return fingerprint.files_hash(sorted(Path(str(methods.__file__)).parent.glob("*.py")))


def _kept(file: Path, device: torch.device, compute: Callable[[], State]) -> State:
    """Return what the file holds, or compute it and keep it there."""
    try:
        state = _read(file)
        os.utime(file)  # used now, so that others are deleted first
        return {name: tensor.to(device) for name, tensor in state.items()}
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        warnings.warn(f"{file}: got a damaged start ({error}), which is computed again", stacklevel=2)
    state = compute()
    with contextlib.suppress(OSError, SafetensorError):  # a cache that cannot be written costs time and nothing else
        _write(file, state)
    return state


def _read(file: Path) -> State:
    with safe_open(file, framework="pt") as opened:
        facts = opened.metadata()
        state = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (it is no dict)
    if _content_hash(state) != facts["sha256"]:
        raise ValueError("its content is not what its hash says")
    for name, (shape, dtype) in json.loads(facts["zeros"]).items():
        state[name] = torch.zeros(shape, dtype=vars(torch)[dtype])
    return {name: state[name] for name in json.loads(facts["order"])}


def _write(file: Path, state: State) -> None:
    """Write under another name and rename; tensors of zeros, half of most starts, are written as their shapes."""
    zeros = {name: (tuple(t.shape), str(t.dtype).removeprefix("torch.")) for name, t in state.items() if not t.any()}
    others = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items() if name not in zeros}
    facts = {"sha256": _content_hash(others), "zeros": json.dumps(zeros), "order": json.dumps(list(state))}
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=file.parent, suffix=".unfinished")
    os.close(handle)
    try:
        save_file(others, temporary, facts)
        os.replace(temporary, file)
    finally:
        Path(temporary).unlink(missing_ok=True)
    _delete_oldest(file.parent)


def _delete_oldest(folder: Path) -> None:
    """Keep the folder within its size; a file that another process has deleted is not missed."""
    files: list[tuple[float, int, Path]] = []
    for file in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            state = file.stat()
            files.append((state.st_mtime, state.st_size, file))
    total = sum(size for _, size, _ in files)
    for _, size, file in sorted(files):
        if total <= MOST_BYTES:
            return
        file.unlink(missing_ok=True)
        total -= size


def _bytes(tensor: Tensor) -> memoryview:
    """Return the bytes; flat, since a column's stride is not that of its numbers."""
    return tensor.detach().contiguous().flatten().cpu().view(torch.uint8).numpy().data


def _content_hash(state: State) -> str:
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(_bytes(state[name]))
    return digest.hexdigest()
