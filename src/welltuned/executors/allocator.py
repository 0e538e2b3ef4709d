"""What makes a process that trains hold neither too little memory nor too much.

Freed memory stays with it: glibc hands large blocks back to the system and asks for new ones. A micro-step frees and
takes the same large tensors again and again, and every page of a new one is a fault of the processor: 16,000 in a step
of abacus-middle, a tenth of its time (measured on two CPU cores: 1.14 s of processor time against 1.01 s, 32 trials, 4
rows of each, float32). And it asks for huge pages: a micro-step takes 5 to 10 % less time, the first one a second more
(abacus-middle, float32 and bfloat16, and SmolLM2-135M, two AMX cores). What one thread has freed another is to use:
glibc gives every thread blocks of its own, with which two strands and the validation after them held 1,258 to 1,292 MiB
instead of 1,149 to 1,196, at the same speed; with one pool for all they were 5 % slower (abacus-middle, 32 trials of
batch 64, two AMD cores, three of each in turn). Elsewhere than on glibc this changes nothing.

oneDNN, which multiplies in bfloat16, keeps what it prepared for the last 1,024 shapes, and scratch memory with each.
Rows differ in length, so every micro-step has shapes of its own: a pack that began with 1.2 GiB held 3.0 after 200
micro-steps (abacus-middle, 32 trials of batch 64, two AMX cores). Where 16 are kept it stayed at 1.26 GiB for 120 of
them; with 32 a pack of batch 4 held 1.17 GiB after 60 micro-steps instead of 2.12, at the same speed.
"""

import ctypes
import platform
from collections.abc import Mapping

# of <malloc.h>
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
LARGEST = 2**31 - 1  # of an int: blocks above are mapped on their own
TOP_PAD_BYTES = 1 << 26  # asked of the system at a time; assumed
TUNABLES = "GLIBC_TUNABLES"
# Huge pages from glibc 2.35 on, earlier ones do not look at it; so many pools of memory for all threads (above).
SETTINGS = {"glibc.malloc.hugetlb": "1", "glibc.malloc.arena_max": "2"}
# Of oneDNN and of PyTorch's own layer above it. Of 16, 32 and 64, 16 cost compiled packs 3 % of
# their time and 64 held a quarter more (measured on abacus-middle).
SHAPES_KEPT = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "32", "LRU_CACHE_CAPACITY": "32"}


def environment(inherited: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a child that trains: `inherited`, and what this module says unless that is in it.

    >>> environment({"GLIBC_TUNABLES": "glibc.malloc.check=1"})["GLIBC_TUNABLES"]
    'glibc.malloc.check=1:glibc.malloc.hugetlb=1:glibc.malloc.arena_max=2'
    """
    told = [part for part in inherited.get(TUNABLES, "").split(":") if part]
    names = {part.partition("=")[0] for part in told}
    told += [f"{name}={value}" for name, value in SETTINGS.items() if name not in names]
    return {**SHAPES_KEPT, **inherited, TUNABLES: ":".join(told)}


def keep_freed_memory() -> None:
    """Keep what is freed for the next block, up to `release`."""
    libc = _glibc()
    if libc is not None:
        libc.mallopt(M_MMAP_THRESHOLD, LARGEST)
        libc.mallopt(M_TRIM_THRESHOLD, LARGEST)
        libc.mallopt(M_TOP_PAD, TOP_PAD_BYTES)


def release() -> None:
    """Give the system back what is free now: between two jobs."""
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None
