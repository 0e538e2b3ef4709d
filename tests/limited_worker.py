"""The real worker under a memory limit: LIMIT_BYTES more than it has when a pack starts, enforced as LIMIT_KIND says.

"kill": the process is ended by SIGKILL, as the system ends one when memory runs out (pages of libraries do not count,
since when these are read is no matter of the pack). "data": the system refuses to give
more (RLIMIT_DATA), so that an allocation raises.
"""

import os
import re
import resource
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from welltuned import worker
from welltuned.records import Event, Job, Runtime, TrainJob

POLL_SECONDS = 0.002


def run(job: Job, runtime: Runtime) -> Iterator[Event]:
    """Run a job; packs under the limit."""
    if isinstance(job, TrainJob):
        limit = int(os.environ["LIMIT_BYTES"])
        if os.environ["LIMIT_KIND"] == "kill":
            threading.Thread(target=_watch, args=(_kibibytes("RssAnon") * 1024 + limit,), daemon=True).start()
        else:
            resource.setrlimit(resource.RLIMIT_DATA, (_kibibytes("VmData") * 1024 + limit, resource.RLIM_INFINITY))
    yield from worker.run(job, runtime)


def _watch(limit: int) -> None:
    while _kibibytes("RssAnon") * 1024 < limit:
        time.sleep(POLL_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)


def _kibibytes(field: str) -> int:
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found, f"{field} is not in /proc/self/status"
    return int(found.group(1))
