"""Laws of locks between processes, with `flock` and without it."""

import errno
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ensemble.system import locks
from ensemble.system.locks import LockedError, locked

ROOT = Path(__file__).resolve().parents[3]
HOLDER = """
import errno, sys, time
from pathlib import Path
from ensemble.system import locks
if sys.argv[2] == "file":
    locks.fcntl = None
with locks.locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture(params=["flock", "file", errno.ENOSYS, errno.ENOLCK])
def kind(request, monkeypatch) -> str:
    """Locks as they are, on a system without `fcntl`, and where `flock` fails."""
    if request.param == "flock":
        return "flock"
    if request.param == "file":
        monkeypatch.setattr(locks, "fcntl", None)
    else:

        def fail(*_):
            raise OSError(request.param, os.strerror(request.param))

        monkeypatch.setattr(locks.fcntl, "flock", fail)
    return "file"


def start_holder(path: Path, kind: str) -> "subprocess.Popen[str]":
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path), kind],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    return holder


def test_a_lock_excludes_names_and_outlives_no_other_process(kind, tmp_path):
    path = tmp_path / "lock"
    holder = start_holder(path, kind)
    try:
        with pytest.raises(LockedError, match=f"^process {holder.pid}$"), locked(path, timeout=0.3):
            pytest.fail("two processes hold one lock")
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        holder.communicate()

    with locked(path, timeout=5):
        pass
    assert {file.name for file in tmp_path.iterdir()} <= {"lock"}


def test_a_lock_excludes_other_threads_and_is_freed_by_an_error(kind, tmp_path):
    path = tmp_path / "lock"

    def fail() -> None:
        with locked(path):
            with pytest.raises(LockedError, match=str(os.getpid())), locked(path, timeout=0):
                pytest.fail("held twice")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    with locked(path, timeout=0):
        pass


def test_threads_that_take_turns_never_overlap(kind, tmp_path):
    inside, waits, overlaps = [], [], []

    def work() -> None:
        for _ in range(5):
            with locked(tmp_path / "lock", waiting=lambda: waits.append(1)):
                inside.append(1)
                overlaps.append(len(inside))
                time.sleep(0.005)
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)

    assert overlaps == [1] * 15
    assert waits


def test_the_file_of_another_machine_counts_only_while_it_is_touched(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "fcntl", None)
    monkeypatch.setattr(locks, "_STALE", 0.5)
    path = tmp_path / "lock.held"
    lock, ended = tmp_path / "lock", threading.Event()
    path.write_text("4711 elsewhere\n")

    def touch() -> None:
        while not ended.wait(0.1):
            os.utime(path)

    thread = threading.Thread(target=touch)
    thread.start()
    try:
        with pytest.raises(LockedError, match="process 4711 on elsewhere"), locked(lock, timeout=1):
            pytest.fail("its holder is alive")
    finally:
        ended.set()
        thread.join()

    with locked(lock, timeout=5):
        assert path.read_text() == f"{os.getpid()} {platform.node()}\n"


def test_a_folder_that_cannot_be_written_is_no_lock_to_wait_for(tmp_path):
    with pytest.raises(FileNotFoundError), locked(tmp_path / "missing" / "lock"):
        pytest.fail("held in a folder that does not exist")
