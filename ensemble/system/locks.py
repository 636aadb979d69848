"""Locks between processes, also on file systems that have no `flock`."""

import errno
import math
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
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
    path: Path, *, timeout: float = math.inf, waiting: Callable[[], object] = lambda: None
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
    attempt = _Attempt(path)
    acquired = attempt.acquire()
    if not acquired and timeout > 0:
        waiting()
    while not acquired:
        if time.monotonic() >= end and attempt.holder_is_alive:
            raise LockedError(attempt.describe_holder())
        time.sleep(_POLL)
        acquired = attempt.acquire()
    with attempt.held:
        yield


class _Attempt:
    """Attempts to acquire a lock, by `flock` as long as the file system has it."""

    def __init__(self, path: Path) -> None:
        self.held = ExitStack()  # frees the lock when it is closed
        self.holder_is_alive = self._native = fcntl is not None
        self._path = path
        self._marker = path.with_name(f"{path.name}.held")  # where there is no `flock`
        self._seen: tuple[object, float] | None = None  # state of the marker, and since when

    def acquire(self) -> bool:
        """Attempts once, without waiting."""
        try:
            return self._acquire_flock() if self._native else self._acquire_marker()
        except OSError as error:
            if not self._native or error.errno not in _MISSING:
                raise
            self._native = self.holder_is_alive = False
            return self._acquire_marker()

    def describe_holder(self) -> str:
        """Returns the process that the lock's file names."""
        pid, host = _read_owner(self._path if self._native else self._marker)
        where = "" if host == platform.node() else f" on {host}"
        return f"process {pid}{where}" if pid else "another process"

    def _acquire_flock(self) -> bool:
        with ExitStack() as stack:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
            stack.callback(os.close, descriptor)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):  # the latter on network file systems
                return False
            try:
                is_current = os.path.samestat(os.fstat(descriptor), self._path.stat())
            except FileNotFoundError:
                is_current = False
            if not is_current:  # the previous holder has just removed the file
                return self._acquire_flock()
            os.ftruncate(descriptor, 0)
            os.write(descriptor, _owner())
            stack.callback(fcntl.flock, descriptor, fcntl.LOCK_UN)  # also for forked children
            stack.callback(self._path.unlink, missing_ok=True)
            self.held = stack.pop_all()
        return True

    def _acquire_marker(self) -> bool:
        try:
            with self._marker.open("xb") as file:
                file.write(_owner())
        except FileExistsError:
            if not self._is_stale():
                return False
            self._marker.unlink(missing_ok=True)
            return self._acquire_marker()
        released = threading.Event()
        threading.Thread(target=_touch, args=(self._marker, released), daemon=True).start()
        self.held.callback(self._marker.unlink, missing_ok=True)
        self.held.callback(released.set)
        return True

    def _is_stale(self) -> bool:
        """Returns whether the marker's process has ended, or it was not touched for long."""
        pid, host = _read_owner(self._marker)
        if host == platform.node() and not _is_alive(pid):
            return True
        try:
            state = pid, host, self._marker.stat().st_mtime_ns
        except FileNotFoundError:
            return False
        now = time.monotonic()
        if self._seen is None or state != self._seen[0]:  # only changes count, as clocks differ
            self.holder_is_alive = self._seen is not None
            self._seen = state, now
        return now - self._seen[1] > _STALE


def _touch(path: Path, released: threading.Event) -> None:
    while not released.wait(_BEAT):
        with suppress(OSError):
            os.utime(path)


def _owner() -> bytes:
    return f"{os.getpid()} {platform.node()}\n".encode()


def _read_owner(path: Path) -> tuple[int, str]:
    """Returns process id and host named in a lock's file; 0 if there are none."""
    try:
        pid, _, host = path.read_text("utf-8").strip().partition(" ")
        return int(pid), host
    except (OSError, ValueError):
        return 0, ""


def _is_alive(pid: int) -> bool:
    if os.name != "nt":  # where signal 0 would end it
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:  # another user's
            pass
    return True
