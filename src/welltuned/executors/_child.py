"""The child's side of the inline executor: receive a job, run the entry point, send its events back."""

import importlib
import os
import sys
import threading
import time
import traceback
from multiprocessing.connection import Connection
from types import TracebackType

from welltuned.errors import InputError, MachineError, StoreError, WelltunedError
from welltuned.executors import allocator

ERRORS = {kind.__name__: kind for kind in (InputError, StoreError, MachineError, WelltunedError)}
PARENT_POLL_SECONDS = 0.5  # assumed: how long an orphan may live on
OUT_OF_MEMORY = frozenset({"MemoryError", "OutOfMemoryError"})  # Python's, and torch's for a GPU
NO_MEMORY_TEXT = "can't allocate memory"  # torch's on a CPU: a RuntimeError


def serve(handle: int, entry: str, parent: int) -> None:
    """Run jobs that arrive on the connection `handle` until it closes.

    `entry` is "module:function" of `run(job, runtime) -> Iterator[Event]`.
    """
    allocator.keep_freed_memory()
    threading.Thread(target=_die_with, args=(parent,), daemon=True).start()
    connection = Connection(handle)
    sys.excepthook = _reporter(connection)
    module_name, _, function_name = entry.partition(":")
    run = vars(importlib.import_module(module_name))[function_name]
    while True:
        try:
            job, runtime = connection.recv()
        except EOFError:
            return
        try:
            for event in run(job, runtime):
                connection.send(("event", event))
        except WelltunedError as error:
            connection.send(("error", *_portable(error)))
        else:
            connection.send(("done",))
        allocator.release()


def _portable(error: WelltunedError) -> tuple[str, list[str]]:
    kind = next(known for known in type(error).__mro__ if known.__name__ in ERRORS)
    return kind.__name__, list(error.problems) if isinstance(error, InputError) else [str(error)]


def _reporter(connection: Connection):
    """Return an excepthook that tells the parent what happened, before the child ends."""

    def report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if isinstance(error, BrokenPipeError | ConnectionResetError):
            return  # the parent is gone, and nobody is left to tell
        if kind.__name__ in OUT_OF_MEMORY or NO_MEMORY_TEXT in str(error):
            connection.send(("lost", f"out of memory: {error}"))
        else:
            connection.send(("defect", "".join(traceback.format_exception(kind, error, trace))))

    return report


def _die_with(parent: int) -> None:
    """End this process when its parent has died (kill -9 included), so that no orphan burns the processor."""
    while os.getppid() == parent:
        time.sleep(PARENT_POLL_SECONDS)
    os._exit(1)
