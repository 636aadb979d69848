"""Memory and CPU time that this process may use, within the limits of its container."""

import os
from collections.abc import Iterator
from pathlib import Path

_GROUPS = Path("/proc/self/cgroup")
_MOUNT = Path("/sys/fs/cgroup")


def memory_limit() -> int | None:
    """Returns the bytes of memory that this process may use, None if they are not known.

    It is the machine's memory or the lowest limit of the control groups of the process.
    """
    limits = [limit for limit in (_machine_memory(), *_group_memory()) if limit is not None]
    return min(limits, default=None)


def cpu_quota() -> float | None:
    """Returns the CPU seconds per second that control groups allow, None without a limit."""
    quotas = []
    for folder in _group_folders("cpu"):
        quota, _, period = _read(folder / "cpu.max").partition(" ")  # version 2
        if not quota:
            quota, period = (_read(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
        microseconds, every = _number(quota), _number(period)
        if microseconds and every:
            quotas.append(microseconds / every)
    return min(quotas, default=None)


def _machine_memory() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def _group_memory() -> Iterator[int | None]:
    for folder in _group_folders("memory"):
        for name in ("memory.max", "memory.high", "memory.limit_in_bytes"):
            yield _number(_read(folder / name))


def _group_folders(controller: str) -> Iterator[Path]:
    """Yields the folders of the process's control group and of those that contain it.

    In a container the group's path may be that of the host, which is not mounted; the root of the
    mount is then the container's own group.
    """
    for line in _read(_GROUPS).splitlines():
        _, names, path = line.split(":", 2)
        if not names:
            roots = [_MOUNT, _MOUNT / "unified"]
        elif controller in names.split(","):
            roots = [_MOUNT / names, _MOUNT / controller]
        else:
            continue
        for root in roots:
            group = root / path.lstrip("/")
            yield from (group, *(each for each in group.parents if each.is_relative_to(root)))


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8").strip()
    except (OSError, ValueError):
        return ""


def _number(text: str) -> int | None:
    """Returns a limit; None for "max", -1 and what is missing."""
    return int(text) if text.isdecimal() else None
