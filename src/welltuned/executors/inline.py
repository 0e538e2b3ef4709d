"""One child process that lives on between jobs: importing torch is slow, and lack of memory kills only the child."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from multiprocessing.connection import Connection
from types import TracebackType

from welltuned.errors import WelltunedError
from welltuned.executors import allocator
from welltuned.executors._child import ERRORS
from welltuned.records import Event, Job, JobLost, Runtime

ENTRY = "welltuned.worker:run"
LATE = "the worker was ended at its deadline"
# Not multiprocessing's spawn, which runs the caller's main module again: a script needs no `__main__` guard so.
# SIGINT is for the parent, which stores what there is and then closes the child.
BOOT = """
import signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
import json
sys.path[:] = json.loads(sys.argv[4])
from welltuned.executors import _child
_child.serve(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
"""


class Inline:
    """Runs jobs one after the other in a child process. Close it, or use `with`."""

    def __init__(self, runtime: Runtime, entry: str = ENTRY) -> None:
        self._runtime = runtime
        self._entry = entry
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None

    def run(self, job: Job, deadline: float | None = None) -> Generator[Event]:
        """Yield the events of a job; the last is JobEnd, or JobLost where the child died.

        At the `deadline`, of `time.monotonic`, a job is ended and lost.

        Errors of welltuned raised in the child are raised here as themselves; any other becomes a WelltunedError that
        holds its traceback.
        """
        connection = self._start()
        idle = False  # whether the child waits for its next job
        try:
            connection.send((job, self._runtime))
            while True:
                if deadline is not None and not connection.poll(max(0.0, deadline - time.monotonic())):
                    yield JobLost(job.id, LATE)
                    return
                match connection.recv():
                    case ("event", event):
                        yield event
                    case ("error", kind, problems):
                        idle = True
                        raise ERRORS[kind](problems if kind == "InputError" else problems[0])
                    case ("lost", reason):
                        yield JobLost(job.id, reason)
                        return
                    case ("defect", trace):
                        raise WelltunedError(
                            f"job {job.id} failed in a way that welltuned did not expect; what is stored is safe. This "
                            f"is a defect of welltuned or of a plug-in, please report it with these lines:\n{trace}"
                        )
                    case _:
                        idle = True
                        return
        except (EOFError, ConnectionResetError, BrokenPipeError):
            yield JobLost(job.id, self._reap())
        finally:
            if not idle:  # dead, or in the midst of a job that nobody listens to any more
                self.close()

    def close(self) -> None:
        """End the child."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def __enter__(self) -> "Inline":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def process_id(self) -> int | None:
        """Return the child's process id, None where none is alive."""
        return None if self._process is None else self._process.pid

    def _start(self) -> Connection:
        if self._connection is not None:
            return self._connection
        ours, theirs = socket.socketpair()
        with theirs:
            handle = theirs.fileno()
            path = json.dumps([str(folder) for folder in sys.path])
            command = [sys.executable, "-c", BOOT, str(handle), self._entry, str(os.getpid()), path]
            # libraries' bars would write across the study's own
            environment = allocator.environment({**os.environ, "TQDM_DISABLE": "1"})
            self._process = subprocess.Popen(command, pass_fds=(handle,), stdin=subprocess.DEVNULL, env=environment)
        self._connection = Connection(ours.detach())
        return self._connection

    def _reap(self) -> str:
        """Wait for a child that closed its connection, and say how it ended."""
        process = self._process
        code = None if process is None else process.wait()
        self.close()
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            hint = " (the system kills a process so when memory runs out)" if name == "SIGKILL" else ""
            return f"the worker was ended by {name}{hint}"
        return f"the worker ended with exit code {code}"
