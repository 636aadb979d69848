"""What a figure was measured on."""

import os
import platform
from pathlib import Path


def describe_machine() -> str:
    """Returns processor, cores and system in a line."""
    return f"{_processor()}, {os.cpu_count()} cores, {platform.platform()}"


def resident(process: int | str = "self") -> float:
    """Returns the memory that a process holds, in MB, as Linux tells it."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1000


def _processor() -> str:
    """Returns the processor's name, as Linux tells it, or else the platform's word for it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor()
