"""What a figure was measured on."""

import os
import platform
from pathlib import Path


def describe_machine() -> str:
    """Returns processor, cores and system in a line."""
    return f"{_processor()}, {os.cpu_count()} cores, {platform.platform()}"


def _processor() -> str:
    """Returns the processor's name, as Linux tells it, or else the platform's word for it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor()
