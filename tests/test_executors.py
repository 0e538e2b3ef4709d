"""The inline executor: events arrive, errors cross as themselves, a dead child is a lost job, no child is orphaned."""

import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import a_config
import fake_worker
from welltuned.errors import InputError, MachineError, StoreError, WelltunedError
from welltuned.executors import allocator, machine
from welltuned.executors.inline import Inline
from welltuned.records import JobEnd, JobLost, Outcome, Role, Runtime, SurveyJob, TrainJob, Trial

ENTRY = "fake_worker:run"
JOB = TrainJob("pack", (Trial(a_config.CONFIG, Role.SELECT),), 4)


@pytest.fixture
def moods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder in which a file tells the child to misbehave once."""
    folder = tmp_path / "moods"
    folder.mkdir()
    monkeypatch.setenv("FAKE_MOODS", str(folder))
    return folder


@pytest.fixture
def inline(tmp_path: Path, moods: Path):
    """Return an executor that runs the fake worker."""
    with Inline(Runtime("cpu", 1, 30.0, str(tmp_path / "blobs")), ENTRY) as executor:
        yield executor


def test_events_of_the_child_equal_those_of_a_direct_call(inline: Inline, tmp_path: Path) -> None:
    direct = list(fake_worker.run(JOB, Runtime("cpu", 1, 30.0, str(tmp_path / "direct"))))
    through = list(inline.run(JOB))
    assert [type(event) for event in through] == [type(event) for event in direct]
    assert [e.train_losses for e in through if isinstance(e, Outcome)] == [
        e.train_losses for e in direct if isinstance(e, Outcome)
    ]
    assert isinstance(through[-1], JobEnd)


def test_the_child_stays_alive_between_jobs(inline: Inline) -> None:
    list(inline.run(JOB))
    first = inline.process_id
    list(inline.run(SurveyJob("key", a_config.CONFIG)))
    assert inline.process_id == first


@pytest.mark.parametrize(("mood", "said"), [("kill", "SIGKILL"), ("exit", "exit code 3"), ("memory", "out of memory")])
def test_a_dead_child_is_a_lost_job_and_the_next_job_gets_a_new_child(
    inline: Inline, moods: Path, mood: str, said: str
) -> None:
    (moods / mood).touch()
    last = list(inline.run(JOB))[-1]
    assert isinstance(last, JobLost)
    assert said in last.reason
    assert isinstance(list(inline.run(JOB))[-1], JobEnd)


def test_a_peak_is_the_process_own(tmp_path):
    """In bytes, also where the system does not tell it in a file."""
    status = tmp_path / "status"
    status.write_text("Name:\tpython\nVmPeak:\t 9000 kB\nVmHWM:\t 1234 kB\n")
    assert machine.peak_bytes(status) == 1234 * 1024
    status.write_text("Name:\tpython\n")
    for path in (status, tmp_path / "missing"):
        assert 0.5 < machine.peak_bytes(path) / machine.peak_bytes() < 10


@pytest.mark.parametrize(("mood", "kind"), [("store", StoreError), ("machine", MachineError)])
def test_errors_cross_as_themselves(inline: Inline, moods: Path, mood: str, kind: type[WelltunedError]) -> None:
    (moods / mood).touch()
    with pytest.raises(kind, match=f"^planted {mood} error$"):
        list(inline.run(JOB))
    assert isinstance(list(inline.run(JOB))[-1], JobEnd)


def test_an_input_error_keeps_its_problems_apart(inline: Inline, moods: Path) -> None:
    (moods / "input").touch()
    with pytest.raises(InputError) as caught:
        list(inline.run(JOB))
    assert caught.value.problems == ("first problem", "second problem")


def test_an_unexpected_error_carries_its_traceback(inline: Inline, moods: Path) -> None:
    (moods / "crash").touch()
    with pytest.raises(WelltunedError, match=r"(?s)defect of welltuned.*please report.*ZeroDivisionError: planted"):
        list(inline.run(JOB))


def test_a_job_that_is_abandoned_leaves_nothing_for_the_next(inline: Inline) -> None:
    for _ in inline.run(JOB):
        break
    events = list(inline.run(SurveyJob("key", a_config.CONFIG)))
    assert [type(event).__name__ for event in events] == ["Survey", "JobEnd"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "processor : 0\ncpu family\t: 6\nmodel\t\t: 207\nmodel name\t: Xeon (R) 8\nstepping : 2\nflags : a b\n\n"
            "processor : 1\nmodel name : another\n",
            "Xeon (R) 8, cpu family 6, model 207, stepping 2",
        ),
        (
            "processor : 0\nCPU implementer : 0x41\nCPU architecture: 8\nCPU part : 0xd0c\nCPU revision : 1\n",
            "CPU implementer 0x41, CPU part 0xd0c, CPU architecture 8, CPU revision 1",
        ),
        ("nothing known\n", platform.machine()),
        (None, platform.processor() or platform.machine()),
    ],
)
def test_the_processor_is_named_with_its_version(tmp_path, text, expected):
    info = tmp_path / "cpuinfo"
    if text is not None:
        info.write_text(text)
    assert machine.processor(info) == expected


def test_memory_is_what_the_machine_and_the_container_leave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "meminfo"
    info.write_text("MemTotal: 8000 kB\nMemAvailable:    4000 kB\n")
    monkeypatch.setattr(machine, "MEMORY_INFO", info)
    monkeypatch.setattr(machine, "CONTROL_GROUP", tmp_path)
    assert machine.memory_bytes("cpu") == int(0.8 * 4000 * 1024)
    (tmp_path / "memory.current").write_text("2000000")
    (tmp_path / "memory.max").write_text("max\n")
    assert machine.memory_bytes("cpu") == int(0.8 * 4000 * 1024)
    (tmp_path / "memory.max").write_text("3000000\n")
    (tmp_path / "memory.stat").write_text("anon 1\ninactive_file 500000\n")
    assert machine.memory_bytes("cpu") == int(0.8 * 1500000)
    info.unlink()
    (tmp_path / "memory.max").unlink()
    assert machine.memory_bytes("cpu") > 0
    assert machine.num_threads() >= 1


def test_a_gpu_is_asked_for_its_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with pytest.raises(
        MachineError, match=r"--device: got 'cuda:0', expected a machine with nvidia-smi; use --device cpu"
    ):
        machine.memory_bytes("cuda:0")
    with pytest.raises(InputError, match=r"--device: got 'gpu', expected \"cpu\" or \"cuda:0\"; write --device cpu"):
        machine.memory_bytes("gpu")
    command = tmp_path / "nvidia-smi"
    command.write_text("#!/bin/sh\necho 1000\n")
    command.chmod(0o755)
    assert machine.memory_bytes("cuda:1") == int(0.8 * 1000 * 2**20)
    command.write_text("#!/bin/sh\necho No devices were found\nexit 6\n")
    with pytest.raises(MachineError, match=r"--device cuda:1: got 'No devices were found', expected its free memory"):
        machine.memory_bytes("cuda:1")
    command.write_text("#!/bin/sh\ncase $1 in --id=GPU-7f) echo 500;; --id=3) echo 300;; *) echo wrong;; esac\n")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-7f")
    assert machine.memory_bytes("cuda:0") == int(0.8 * 300 * 2**20)
    assert machine.memory_bytes("cuda:1") == int(0.8 * 500 * 2**20)
    with pytest.raises(
        InputError, match=r"--device: got 'cuda:2', expected one of the 2 GPUs that CUDA_VISIBLE_DEVICES"
    ):
        machine.memory_bytes("cuda:2")


PARENT = """
import sys
import a_config
from welltuned.executors import machine
from welltuned.executors.inline import Inline
from welltuned.records import Role, Runtime, TrainJob, Trial
inline = Inline(Runtime("cpu", 1, 30.0, sys.argv[1]), "fake_worker:run")
for event in inline.run(TrainJob("pack", (Trial(a_config.CONFIG, Role.SELECT),), 4)):
    print(inline.process_id, flush=True)
"""


def _alive(process_id: int) -> bool:
    stat = Path(f"/proc/{process_id}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_kill_9_of_the_parent_leaves_no_orphan(tmp_path: Path) -> None:
    # No `__main__` guard in PARENT, and none is needed.
    environment = {**os.environ, "FAKE_STEP_SECONDS": "20", "PYTHONPATH": os.pathsep.join(map(str, sys.path))}
    command = [sys.executable, "-c", PARENT, str(tmp_path)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert _alive(child)
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while _alive(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _alive(child)


ALLOCATES = """
import mmap, resource
from welltuned.executors import allocator
allocator.keep_freed_memory()
def touched():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = bytearray(1 << 26)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
held = lambda: int(open("/proc/self/statm").read().split()[1]) * mmap.PAGESIZE
touched()
again, kept = touched(), held()
allocator.release()
print(again, kept - held())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told to keep what is freed")
def test_freed_memory_is_kept_for_the_next_block_and_given_back_between_jobs():
    shown = subprocess.run([sys.executable, "-c", ALLOCATES], capture_output=True, text=True, check=True)
    faults, given_back = map(int, shown.stdout.split())
    assert faults < 1000  # 16,384 pages of a new block
    assert given_back > 1 << 25


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="reads /proc")
def test_a_child_begins_with_the_settings_of_its_memory_unless_the_user_says_otherwise(inline, monkeypatch) -> None:
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=0")
    monkeypatch.setenv("LRU_CACHE_CAPACITY", "7")
    list(inline.run(JOB))
    begun = Path(f"/proc/{inline.process_id}/environ").read_text().replace("\0", ":")  # glibc cuts it at the colons
    assert "GLIBC_TUNABLES=glibc.malloc.hugetlb=0:glibc.malloc.arena_max=2:" in begun
    assert "ONEDNN_PRIMITIVE_CACHE_CAPACITY=32:" in begun and "LRU_CACHE_CAPACITY=7:" in begun


MULTIPLIES = """
import os, sys
import torch
held = lambda: int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGESIZE")
torch.set_num_threads(1)
def multiply(length):
    x, w = (torch.ones(8, rows, 64, dtype=torch.bfloat16) for rows in (length, 384))
    torch.bmm(x, w.mT), torch.bmm(x.mT, x), torch.bmm(w, x.mT)
for length in (400, 300):
    multiply(length)
before = held()
for length in range(40, 400):
    multiply(length)
print(held() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
def test_many_shapes_in_bfloat16_do_not_pile_up_in_memory():
    """Where the processor has AMX, oneDNN keeps 1 GiB for these shapes if it is not told; elsewhere less."""
    environment = allocator.environment(os.environ)
    shown = subprocess.run(
        [sys.executable, "-c", MULTIPLIES], capture_output=True, text=True, check=True, env=environment
    )
    assert int(shown.stdout) < 1 << 28  # 90 MiB were measured
