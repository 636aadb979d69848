"""Locks between processes, also on file systems that have no `flock`."""

import errno
import math
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_MISSING = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL}  # no `flock` here
_POLL = 0.1  # seconds between two attempts
_BEAT = 2.0  # seconds between two signs of life of a holder without `flock`
_STALE = 30.0  # seconds without one, after which its lock counts for nothing


class LockedError(Exception):
    """Another process still holds a lock; the message names it, such as "process 4711"."""


@contextmanager
def locked(
    path: Path,
    *,
    timeout: float = math.inf,
    waiting: Callable[[], object] = lambda: None,
) -> Iterator[None]:
    """Holds a lock for the length of a `with` block.

    The system frees the lock when its holder ends, however it ends; children that
    the holder forked hold it too. Without `flock` the holder touches a file beside
    `path` instead, and that file is ignored once its process is gone from this
    machine or nobody has touched it for 30 seconds.

    Args:
        path: The lock's file, in an existing folder.
        timeout: Seconds to wait for another holder; 0: only until it is known to be alive,
            which `flock` knows at once.
        waiting: Called once if another process has to be waited for.

    Raises:
        LockedError: If another process still holds the lock then.
        OSError: If the file cannot be written.
    """
    end = time.monotonic() + timeout
    attempt = _Attempt(path)
    acquired = attempt.acquire()
    if not acquired and timeout > 0:
        waiting()
    while not acquired:
        if time.monotonic() >= end and attempt.alive:
            raise LockedError(attempt.holder())
        time.sleep(_POLL)
        acquired = attempt.acquire()
    try:
        yield
    finally:
        attempt.release()


class _Attempt:
    """One process's attempts at a lock, by `flock` as long as the file system has it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._marker = path.with_name(f"{path.name}.held")  # where there is no flock
        self._native = fcntl is not None
        self._release: Callable[[], None] = lambda: None
        self._seen: tuple[str, float] | None = None  # the other's marker, and since when
        self.alive = self._native  # whether who holds the lock is known to be alive

    def acquire(self) -> bool:
        """Attempts once, without waiting."""
        if self._native:
            try:
                return self._acquire_native()
            except OSError as error:
                if error.errno not in _MISSING:
                    raise
                self._native = self.alive = False
        return self._acquire_file()

    def release(self) -> None:
        """Frees the lock."""
        self._release()

    def holder(self) -> str:
        """Returns who holds the lock, as far as its file says so."""
        pid, host = _read_owner(self._path if self._native else self._marker)
        where = "" if host == platform.node() else f" on {host}"
        return f"process {pid}{where}" if pid else "another process"

    def _acquire_native(self) -> bool:
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not _is_file(descriptor, self._path):  # its holder removed it just now
                os.close(descriptor)
                return self._acquire_native()
            os.ftruncate(descriptor, 0)
            os.write(descriptor, _owner())
        except (BlockingIOError, PermissionError):  # the latter on some network file systems
            os.close(descriptor)
            return False
        except OSError:
            os.close(descriptor)
            raise
        self._release = partial(_release_native, descriptor, self._path)
        return True

    def _acquire_file(self) -> bool:
        try:
            with self._marker.open("xb") as file:
                file.write(_owner())
        except FileExistsError:
            if not self._is_stale():
                return False
            self._marker.unlink(missing_ok=True)
            return self._acquire_file()
        ended = threading.Event()
        threading.Thread(target=_beat, args=(self._marker, ended), daemon=True).start()

        def release() -> None:
            ended.set()
            self._marker.unlink(missing_ok=True)

        self._release = release
        return True

    def _is_stale(self) -> bool:
        """Returns whether the other's process is gone, or its file was not touched for long."""
        pid, host = _read_owner(self._marker)
        if host == platform.node() and not _is_alive(pid):
            return True
        try:
            state = f"{pid} {host} {self._marker.stat().st_mtime_ns}"
        except FileNotFoundError:
            return False
        if self._seen is None or state != self._seen[0]:  # only changes count, as clocks differ
            self.alive = self._seen is not None
            self._seen = state, time.monotonic()
        return time.monotonic() - self._seen[1] > _STALE


def _owner() -> bytes:
    return f"{os.getpid()} {platform.node()}\n".encode()


def _read_owner(path: Path) -> tuple[int, str]:
    """Returns process id and host that a lock's file names; 0 where it names none."""
    try:
        pid, _, host = path.read_text("utf-8").strip().partition(" ")
        return int(pid), host
    except (OSError, ValueError):
        return 0, ""


def _is_alive(pid: int) -> bool:
    if os.name == "nt":  # where signal 0 would end it
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True


def _is_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _release_native(descriptor: int, path: Path) -> None:
    path.unlink(missing_ok=True)
    fcntl.flock(descriptor, fcntl.LOCK_UN)  # also for children that inherited it
    os.close(descriptor)


def _beat(path: Path, ended: threading.Event) -> None:
    while not ended.wait(_BEAT):
        with suppress(OSError):
            os.utime(path)
