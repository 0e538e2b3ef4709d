"""What a timing depends on besides the program: the processor, its instructions, the memory, the versions."""

import importlib.metadata
import platform
from pathlib import Path

import psutil

CPU_INFO = Path("/proc/cpuinfo")
TELLING = ("avx2", "avx512f", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16")  # what fast matmuls depend on
PACKAGES = ("torch", "transformers", "peft", "accelerate", "welltuned")


def describe(threads: int) -> dict[str, str]:
    """Return the description, in the order in which it is shown."""
    facts = _cpu_facts()
    flags = facts.get("flags", "").split()
    return {
        "processor": facts.get("model name", platform.processor() or platform.machine()),
        "instructions": ", ".join(flag for flag in TELLING if flag in flags) or "not known",
        "cores": f"{psutil.cpu_count(logical=False)} ({psutil.cpu_count()} with hyper-threads)",
        "threads": str(threads),
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in PACKAGES},
    }


def _cpu_facts() -> dict[str, str]:
    if not CPU_INFO.is_file():  # not Linux
        return {}
    lines = (line.split(":", 1) for line in CPU_INFO.read_text().splitlines() if ":" in line)
    facts: dict[str, str] = {}
    for name, value in lines:
        facts.setdefault(name.strip(), value.strip())
    return facts
