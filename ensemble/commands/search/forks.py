"""Child processes by fork: they start in no time, share what is loaded and end with their parent.

Only a process that has not started a backend's devices may fork; importing a
backend is no harm.
"""

import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from tqdm import tqdm

from configs.errors import RunError, UserError

Result = TypeVar("Result")

CRASHED = 70  # exit code of a child that ended by an exception


class Forks:
    """Starts children of this process, all of which end when it ends, however it ends.

    Raises:
        RunError: If the system has no fork.
    """

    def __init__(self) -> None:
        if not hasattr(os, "fork"):
            raise RunError(
                "A search starts its trials by fork, which this system does not have. "
                "Use Linux, macOS or WSL."
            )
        tqdm.monitor_interval = 0  # a bar's watching thread would not survive a fork
        self._lifeline, self._held = os.pipe()  # only this process holds the writing end

    def start(
        self,
        function: Callable[[], int],
        *,
        output: Path | None = None,
        cores: set[int] | None = None,
    ) -> int:
        """Runs a function in a child and returns the child's process id.

        Args:
            function: Returns the child's exit code.
            output: A file that takes what the child writes on the screen.
            cores: The cores that it keeps to; None: all.
        """
        sys.stdout.flush()
        sys.stderr.flush()
        child = os.fork()
        if child == 0:
            self._become(function, output, cores)
        return child

    def call(self, function: Callable[[], Result]) -> Result:
        """Returns what a function returns in a child.

        Raises:
            UserError: If it raises one.
            RunError: If the child ends without an answer.
        """
        reading, writing = os.pipe()

        def answer() -> int:
            os.close(reading)
            try:
                outcome: tuple[bool, Any] = True, function()
            except UserError as error:
                outcome = False, error
            with os.fdopen(writing, "wb") as file:
                pickle.dump(outcome, file)
            return 0

        child = self.start(answer)
        os.close(writing)
        with os.fdopen(reading, "rb") as file:
            content = file.read()
        os.waitpid(child, 0)
        if not content:
            raise RunError("A child process was ended before it had an answer. Start again.")
        succeeded, result = pickle.loads(content)
        if not succeeded:
            raise result
        return result

    def _become(
        self, function: Callable[[], int], output: Path | None, cores: set[int] | None
    ) -> NoReturn:
        code = CRASHED
        try:
            os.setsid()  # Ctrl-C reaches the parent alone, which ends its children
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.close(self._held)
            threading.Thread(target=self._end_with_parent, daemon=True).start()
            if output is not None:
                file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
                os.dup2(file, 1)
                os.dup2(file, 2)
            if cores:
                os.sched_setaffinity(0, cores)
            code = function()
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _end_with_parent(self) -> None:
        os.read(self._lifeline, 1)  # returns when the parent is no more
        os._exit(CRASHED)


def end_child(child: int) -> None:
    """Kills a child and waits for its end."""
    try:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    except (ProcessLookupError, ChildProcessError):
        pass
