"""Named random streams: the only maker of generators, so that the order of calls never matters.

A stream is a function of (study seed, path) alone: `stream(0, "init", 3, "layers.0.q_proj")`. Adding a stream changes
no other one. Seeds are SHA-256 of the path, hence the same on every machine and Python version.
"""

import hashlib

import numpy as np


def seed_of(study_seed: int, *path: str | int) -> int:
    """Return the 63-bit seed of the stream named by `path`.

    >>> seed_of(0, "init", 1) == seed_of(0, "init", 1) != seed_of(0, "init", 2)
    True
    """
    text = "\x1f".join([str(study_seed), *(f"{type(part).__name__}:{part}" for part in path)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def stream(study_seed: int, *path: str | int) -> np.random.Generator:
    """Return a fresh NumPy generator (PCG64) at the start of the stream named by `path`."""
    return np.random.Generator(np.random.PCG64(seed_of(study_seed, *path)))
