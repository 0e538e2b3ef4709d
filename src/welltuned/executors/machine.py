"""What this machine has to give: threads, memory, a folder for what is cheap to find again; and its processor."""

import os
import platform
import resource
import shutil
import subprocess
import sys
from pathlib import Path

from welltuned.errors import InputError, MachineError, problem

SHARE = 0.8  # of what is free now, since other programs grow too; assumed
CONTROL_GROUP = Path("/sys/fs/cgroup")
MEMORY_INFO = Path("/proc/meminfo")
PROCESSOR_INFO = Path("/proc/cpuinfo")
STATUS = Path("/proc/self/status")
# What Linux says of a processor, in this order: the names differ between the families of processors (x86, Arm).
NAMES = ("model name", "Processor", "Hardware", "CPU implementer", "CPU part")
VERSIONS = ("cpu family", "model", "stepping", "CPU architecture", "CPU variant", "CPU revision")


def cache_folder() -> Path:
    """Return where what is cheap to find again is kept between studies."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "welltuned"


def num_threads() -> int:
    """Count the processors that this process may use."""
    return len(os.sched_getaffinity(0)) if "sched_getaffinity" in vars(os) else os.cpu_count() or 1


def processor(info: Path = PROCESSOR_INFO) -> str:
    """Name the processor and its version, as far as the system tells: "Intel(R) ..., cpu family 6, model 207, ..."."""
    if not info.is_file():  # not Linux
        return platform.processor() or platform.machine()
    lines = [line.partition(":") for line in info.read_text(encoding="utf-8", errors="replace").splitlines()]
    told: dict[str, str] = {}
    for name, colon, value in lines:
        if colon and value.strip():
            told.setdefault(name.strip(), value.strip())  # of the first processor
    names = [told[name] if " " in told[name] else f"{name} {told[name]}" for name in NAMES if name in told]
    versions = [f"{name} {told[name]}" for name in VERSIONS if name in told]
    return ", ".join((*names, *versions)) or platform.machine()


def memory_bytes(device: str) -> int:
    """Return the memory to plan for on a device: most of what is free now."""
    if device == "cpu":
        return int(SHARE * min(_free_bytes(MEMORY_INFO), _control_group_bytes(CONTROL_GROUP)))
    kind, _, index = device.partition(":")
    if kind != "cuda" or not (index or "0").isdigit():
        raise InputError(problem("--device", device, '"cpu" or "cuda:0"', "write --device cpu"))
    return int(SHARE * _gpu_bytes(device, index or "0"))


def peak_bytes(status: Path = STATUS) -> int:
    """Return the most memory that this process has held.

    Linux hands `ru_maxrss` down from the parent to a child that it starts, so the process's own high-water mark is
    read where there is one.
    """
    told = status.read_text(encoding="utf-8", errors="replace") if status.is_file() else ""
    lines = dict(line.split(":", 1) for line in told.splitlines())
    if "VmHWM" in lines:
        return int(lines["VmHWM"].split()[0]) * 1024
    scale = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def _free_bytes(info: Path) -> int:
    if not info.is_file():  # not Linux
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    lines = dict(line.split(":", 1) for line in info.read_text().splitlines())
    return int(lines["MemAvailable"].split()[0]) * 1024


def _control_group_bytes(folder: Path) -> float:
    """Return what a container's limit leaves; infinity where there is none."""
    limit, used = folder / "memory.max", folder / "memory.current"
    if not limit.is_file() or not used.is_file() or limit.read_text().strip() == "max":
        return float("inf")
    stat = folder / "memory.stat"
    cached = (
        dict(line.split() for line in stat.read_text().splitlines()).get("inactive_file", "0")
        if stat.is_file()
        else "0"
    )
    return max(0, int(limit.read_text()) - int(used.read_text()) + int(cached))


def _gpu_bytes(device: str, index: str) -> int:
    command = shutil.which("nvidia-smi")
    if command is None:
        raise MachineError(
            problem("--device", device, "a machine with nvidia-smi", "use --device cpu, or give --memory")
        )
    query = [
        command,
        f"--id={_known_to_driver(device, index)}",
        "--query-gpu=memory.free",
        "--format=csv,noheader,nounits",
    ]
    answer = subprocess.run(query, capture_output=True, text=True, check=False)
    if answer.returncode or not answer.stdout.strip().isdigit():
        got = (answer.stdout + answer.stderr).strip()
        raise MachineError(problem(f"--device {device}", got, "its free memory", "check nvidia-smi, or give --memory"))
    return int(answer.stdout) * 2**20


def _known_to_driver(device: str, index: str) -> str:
    """Return the driver's index or UUID of a GPU: it knows nothing of CUDA_VISIBLE_DEVICES, by which PyTorch counts.

    Both count by the PCI bus, since the worker asks PyTorch to (worker.py).
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return index
    names = [name.strip() for name in visible.split(",") if name.strip()]
    if int(index) >= len(names):
        expected = f"one of the {len(names)} GPUs that CUDA_VISIBLE_DEVICES={visible} leaves, counted from 0"
        raise InputError(problem("--device", device, expected, "name another one, or change the variable"))
    return names[int(index)]
