"""Cores that this process may use, and their distribution among processes."""

import math
import os

from ensemble.system.limits import cpu_quota


def count_cores() -> int:
    """Returns the number of cores that this process may use, at least 1, within its CPU quota."""
    cores = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    quota = cpu_quota()
    return cores if quota is None else min(cores, math.ceil(quota))


def shares_of_cores(count: int) -> list[set[int] | None]:
    """Returns the cores for each of `count` processes; None: all, where they cannot be chosen."""
    if not hasattr(os, "sched_getaffinity"):
        return [None] * count
    cores = sorted(os.sched_getaffinity(0))
    return [set(cores[number::count]) or None for number in range(count)]
