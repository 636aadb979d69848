"""Locks between processes, also on file systems that have no `flock`."""

import errno
import math
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_MISSING = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL}  # no `flock` here
_POLL = 0.1  # seconds between two attempts
_BEAT = 2.0  # seconds between two touches by a holder without `flock`
_STALE = 30.0  # seconds without a touch, after which the lock is free


class LockedError(Exception):
    """Another process holds the lock; the message names it, such as "process 4711"."""


@contextmanager
def locked(
    path: Path,
    *,
    timeout: float = math.inf,
    waiting: Callable[[], object] = lambda: None,
) -> Iterator[None]:
    """Holds a lock during a `with` block.

    The system frees the lock when its holder and the holder's forked children end. Without
    `flock` the holder keeps touching a file beside `path`, which is ignored once its process
    has ended on this machine or it was not touched for 30 seconds.

    Args:
        path: The lock's file, in an existing folder.
        timeout: Seconds to wait for another holder; 0: only until it is known to be alive,
            which is at once with `flock`.
        waiting: Called once if another process has to be waited for.

    Raises:
        LockedError: If another process still holds the lock then.
        OSError: If the file cannot be written.
    """
    end = time.monotonic() + timeout
    lock = _acquire(_Flock(path) if fcntl else _TouchedFile(path))
    if not lock.held and timeout > 0:
        waiting()
    while not lock.held:
        if time.monotonic() >= end and lock.holder_is_alive:
            raise LockedError(_describe_owner(lock.path))
        time.sleep(_POLL)
        lock = _acquire(lock)
    try:
        yield
    finally:
        lock.release()


class _Flock:
    """A lock that the system keeps."""

    holder_is_alive = True
    held = False

    def __init__(self, path: Path) -> None:
        self.path = path

    def acquire(self) -> bool:
        self._file = self.path.open("a+b", buffering=0)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            current = os.path.samestat(os.fstat(self._file.fileno()), self.path.stat())
        except (BlockingIOError, PermissionError):  # the latter on some network file systems
            self._file.close()
            return False
        except FileNotFoundError:
            current = False
        except OSError:
            self._file.close()
            raise
        if not current:  # the previous holder has just removed the file
            self._file.close()
            return self.acquire()
        self._file.truncate(0)
        self._file.write(_owner())
        return True

    def release(self) -> None:
        self.path.unlink(missing_ok=True)
        fcntl.flock(self._file, fcntl.LOCK_UN)  # also for children that inherited it
        self._file.close()


class _TouchedFile:
    """A lock that is a file beside the path, touched as long as it is held."""

    holder_is_alive = False  # until the holder is seen to touch the file
    held = False

    def __init__(self, path: Path) -> None:
        self.path = path.with_name(f"{path.name}.held")
        self._released = threading.Event()
        self._seen: tuple[object, float] | None = None  # state of the file, and since when

    def acquire(self) -> bool:
        try:
            with self.path.open("xb") as file:
                file.write(_owner())
        except FileExistsError:
            if not self._is_stale():
                return False
            self.path.unlink(missing_ok=True)
            return self.acquire()
        threading.Thread(target=self._touch, daemon=True).start()
        return True

    def release(self) -> None:
        self._released.set()
        self.path.unlink(missing_ok=True)

    def _is_stale(self) -> bool:
        pid, host = _read_owner(self.path)
        if host == platform.node() and not _is_alive(pid):
            return True
        try:
            state = pid, host, self.path.stat().st_mtime_ns
        except FileNotFoundError:
            return False
        now = time.monotonic()
        if self._seen is None or state != self._seen[0]:  # only changes count, as clocks differ
            self.holder_is_alive = self._seen is not None
            self._seen = state, now
        return now - self._seen[1] > _STALE

    def _touch(self) -> None:
        while not self._released.wait(_BEAT):
            with suppress(OSError):
                os.utime(self.path)


def _acquire(lock: _Flock | _TouchedFile) -> _Flock | _TouchedFile:
    """Attempts once; returns another kind of lock where the file system has no `flock`."""
    try:
        lock.held = lock.acquire()
    except OSError as error:
        if isinstance(lock, _TouchedFile) or error.errno not in _MISSING:
            raise
        return _acquire(_TouchedFile(lock.path))
    return lock


def _owner() -> bytes:
    return f"{os.getpid()} {platform.node()}\n".encode()


def _read_owner(path: Path) -> tuple[int, str]:
    """Returns process id and host named in a lock's file; 0 if there are none."""
    try:
        pid, _, host = path.read_text("utf-8").strip().partition(" ")
        return int(pid), host
    except (OSError, ValueError):
        return 0, ""


def _describe_owner(path: Path) -> str:
    pid, host = _read_owner(path)
    where = "" if host == platform.node() else f" on {host}"
    return f"process {pid}{where}" if pid else "another process"


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
