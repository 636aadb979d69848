"""Worker processes of a search on this machine, and how a worker ends with its search."""

import logging
import os
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from configs.errors import RunError
from ensemble.commands.search.features import FeatureSet
from ensemble.system.cores import count_cores, shares_of_cores
from ensemble.system.devices import has_gpu
from ensemble.system.limits import memory_limit

log = logging.getLogger(__name__)

_MAX_WORKERS = 8  # by default
_WORKER_BYTES = 2**30  # of a worker, beside the features
_MAX_CRASHES = 5  # of a worker, while no trial of the search ends
_POLL = 0.2  # seconds


@dataclass
class Workers:
    """Worker processes, each of which is replaced when it dies.

    Args:
        command: The command line of a worker.
        environments: Name of each worker to its environment variables.
        folder: For their logs.
    """

    command: Sequence[str]
    environments: Mapping[str, Mapping[str, str]]
    folder: Path
    _processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _crashes: dict[str, int] = field(default_factory=dict)
    _ended: int = 0

    def watch(self, ended: int) -> None:
        """Starts workers that are missing.

        Args:
            ended: Number of trials that have ended.

        Raises:
            RunError: If one dies again and again.
        """
        if ended > self._ended:
            self._ended = ended
            self._crashes.clear()
        for name in self.environments:
            process = self._processes.get(name)
            code = process.poll() if process else None
            if process is None:
                self._start(name)
            elif code:
                self._crashes[name] = self._crashes.get(name, 0) + 1
                if self._crashes[name] >= _MAX_CRASHES:
                    raise RunError(
                        f"{name} died {_MAX_CRASHES} times. Its messages are in "
                        f"{self._log(name)}; start the search again after removing the cause."
                    )
                log.warning("%s died (exit code %d) and is started again", name, code)
                self._start(name)

    def end(self) -> None:
        """Ends all workers."""
        for process in self._processes.values():
            process.kill()
            process.wait()

    def _start(self, name: str) -> None:
        with self._log(name).open("ab") as output:
            process = subprocess.Popen(
                self.command,
                env=self.environments[name],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches the parent only, which ends its workers
            )
        names = list(self.environments)
        cores = shares_of_cores(len(names))[names.index(name)]
        if cores:
            os.sched_setaffinity(process.pid, cores)
        self._processes[name] = process

    def _log(self, name: str) -> Path:
        return self.folder / f"{name}.log"


def default_workers(feature_sets: Sequence[FeatureSet]) -> int:
    """Returns how many trials run in parallel by default: one per core, as memory allows.

    On a GPU it is one, as a second one would need the same memory.
    """
    if has_gpu():
        return 1
    needed = sum(each.byte_count for each in feature_sets) + _WORKER_BYTES
    memory = memory_limit()
    room = _MAX_WORKERS if memory is None else memory // needed
    return max(1, min(count_cores(), _MAX_WORKERS, room))


def end_without(alive: Callable[[], bool], patience: float) -> None:
    """Has a thread end this process when something it depends on is gone.

    Args:
        alive: Returns whether that is still there.
        patience: Seconds that it may be gone for.
    """

    def watch() -> None:
        seen = time.monotonic()
        while (here := alive()) or time.monotonic() - seen < patience:
            seen = time.monotonic() if here else seen
            time.sleep(_POLL)
        log.error("error: The search is no longer running. Start it again, then its workers.")
        os._exit(2)

    threading.Thread(target=watch, daemon=True).start()
