"""A fresh process for every measurement, so that its peak memory and its compile time are its own.

The compiler's cache is an empty folder each time: whoever compiles pays for it in every run.
"""

import multiprocessing
import os
import resource
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import ParamSpec, TypeVar

from welltuned.executors import allocator

P = ParamSpec("P")
T = TypeVar("T")

STATUS = Path("/proc/self/status")


def call(function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """Return what the function returns in a process of its own; what it raises is raised here."""
    context = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory(prefix="welltuned-bench-") as cache,
        ProcessPoolExecutor(1, context, _prepare, (cache,)) as pool,
    ):
        return pool.submit(function, *arguments, **named).result()


def _prepare(cache: str) -> None:
    """Set up the child; all runners get the allocator that welltuned's own child has."""
    allocator.keep_freed_memory()
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


def peak_bytes() -> int:
    """Return the most memory that this process has held.

    Linux hands `ru_maxrss` down from the parent to a child that it starts, so the process's own high-water mark is
    read instead.
    """
    if STATUS.is_file():
        lines = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) * 1024
    scale = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def compile_seconds() -> float:
    """Return the seconds that this process has spent in torch.compile."""
    dynamo = sys.modules.get("torch._dynamo.utils")
    return 0.0 if dynamo is None else vars(dynamo)["calculate_time_spent"]()["total_wall_time"]
