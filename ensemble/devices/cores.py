"""Cores: those that this process may use, and how processes share them."""

import os


def count_cores() -> int:
    """Returns the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def shares_of_cores(count: int) -> list[set[int] | None]:
    """Returns the cores that each of `count` processes keeps to; None: all, where it cannot."""
    if not hasattr(os, "sched_getaffinity"):
        return [None] * count
    cores = sorted(os.sched_getaffinity(0))
    return [set(cores[number::count]) or None for number in range(count)]
