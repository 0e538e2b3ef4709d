"""A fresh process for every measurement, so that its peak memory and its compile time are its own.

The compiler's cache is an empty folder each time: whoever compiles pays for it in every run.
"""

import functools
import multiprocessing
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import Any, ParamSpec, TypeVar, cast

from benchmarks import journal
from welltuned.executors import allocator

P = ParamSpec("P")
T = TypeVar("T")


def call(function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """Return what the function returns in a process of its own; what it raises is raised here."""
    return cast("T", within(None, function, *arguments, **named))


def within(seconds: float | None, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T | None:
    """Return what the function returns in a process of its own, or None where that takes more seconds."""
    return _journal().result(lambda: _measured(seconds, function, arguments, named))


@functools.cache
def _journal() -> journal.Journal:
    return journal.of_environment()


def _measured(
    seconds: float | None, function: Callable[..., T], arguments: tuple[Any, ...], named: Mapping[str, Any]
) -> T | None:
    context = multiprocessing.get_context("spawn")
    os.environ.update(allocator.environment(os.environ))  # which a process has from its start
    receiver, sender = context.Pipe(duplex=False)
    with tempfile.TemporaryDirectory(prefix="welltuned-bench-", ignore_cleanup_errors=True) as cache:
        process = context.Process(target=_run, args=(sender, cache, function, arguments, named))
        process.start()
        sender.close()
        try:
            if not receiver.poll(seconds):
                return None
            value, error = receiver.recv()
        except EOFError as lost:
            process.join()
            told = f"{function.__name__}: got exit code {process.exitcode} from its process, expected a result"
            raise RuntimeError(f"{told}; killed for its memory, perhaps") from lost
        finally:
            process.kill()
            process.join()
    if error is not None:
        raise error
    return value


def _run(
    sender: Connection, cache: str, function: Callable[..., object], arguments: tuple[Any, ...], named: dict[str, Any]
) -> None:
    """Set up the child and call; all runners get the allocator that welltuned's own child has."""
    allocator.keep_freed_memory()
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    try:
        sender.send((function(*arguments, **named), None))
    except Exception as error:
        error.add_note(traceback.format_exc())
        sender.send((None, error))


def compile_seconds() -> float:
    """Return the seconds that this process has spent in torch.compile."""
    dynamo = sys.modules.get("torch._dynamo.utils")
    return 0.0 if dynamo is None else vars(dynamo)["calculate_time_spent"]()["total_wall_time"]
