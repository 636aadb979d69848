"""Laws of limits, on control groups as they appear in files."""

import math
import os
from pathlib import Path

import pytest

from ensemble.system import limits
from ensemble.system.cores import count_cores
from ensemble.system.limits import cpu_quota, memory_limit

MB = 2**20


@pytest.fixture
def group(tmp_path, monkeypatch):
    """Places this process into control groups: a line of /proc, and files with contents."""
    monkeypatch.setattr(limits, "_GROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(limits, "_MOUNT", tmp_path / "mount")

    def place(lines: str, files: dict[str, object]) -> None:
        (tmp_path / "cgroup").write_text(lines)
        for name, content in files.items():
            path: Path = tmp_path / "mount" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{content}\n")

    return place


@pytest.mark.parametrize(
    ("lines", "files"),
    [
        ("0::/\n", {"memory.max": 100 * MB}),
        ("0::/a/b\n", {"a/b/memory.max": 100 * MB}),
        ("0::/a/b\n", {"a/b/memory.max": "max", "a/memory.max": 100 * MB}),
        ("0::/a/b\n", {"a/b/memory.max": 300 * MB, "a/memory.max": 100 * MB}),
        ("0::/a\n", {"a/memory.max": "max", "a/memory.high": 100 * MB}),
        ("0::/not/mounted\n", {"memory.max": 100 * MB}),
        ("4:memory:/a\n0::/\n", {"memory/a/memory.limit_in_bytes": 100 * MB}),
        ("4:memory:/a/b\n", {"memory/a/memory.limit_in_bytes": 100 * MB}),
        ("4:memory:/docker/x\n", {"memory/memory.limit_in_bytes": 100 * MB}),
        ("9:memory,hugetlb:/a\n", {"memory,hugetlb/a/memory.limit_in_bytes": 100 * MB}),
        ("0::/a\n", {"unified/a/memory.max": 100 * MB}),
    ],
)
def test_the_lowest_limit_of_the_groups_around_counts(lines, files, group):
    group(lines, files)

    assert memory_limit() == 100 * MB


@pytest.mark.parametrize(
    ("lines", "files"),
    [
        ("", {}),
        ("0::/a\n", {}),
        ("0::/a\n", {"a/memory.max": "max"}),
        ("4:memory:/\n", {"memory/memory.limit_in_bytes": 9223372036854771712}),
        ("4:cpu:/a\n0::/\n", {"cpu/a/memory.limit_in_bytes": 100 * MB}),
    ],
)
def test_without_a_limit_the_memory_is_the_machines(lines, files, group):
    group(lines, files)

    assert memory_limit() == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(
    ("lines", "files", "quota"),
    [
        ("0::/a\n", {"a/cpu.max": "50000 100000"}, 0.5),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000", "a/cpu.max": "150000 100000"}, 1.5),
        ("0::/a\n", {"a/cpu.max": "max 100000"}, None),
        (
            "3:cpu,cpuacct:/a\n",
            {"cpu,cpuacct/a/cpu.cfs_quota_us": 25000, "cpu,cpuacct/a/cpu.cfs_period_us": 50000},
            0.5,
        ),
        ("1:cpu:/\n", {"cpu/cpu.cfs_quota_us": -1, "cpu/cpu.cfs_period_us": 100000}, None),
        ("", {}, None),
    ],
)
def test_a_quota_of_the_cpu_limits_the_cores(lines, files, quota, group):
    group(lines, files)
    cores = len(os.sched_getaffinity(0))

    assert cpu_quota() == quota
    assert count_cores() == (cores if quota is None else min(cores, math.ceil(quota)))
