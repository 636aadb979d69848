"""Ctrl-C that waits for the end of a block of work, so that nothing is left half done."""

import signal
import threading
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import Any, TypeVar

Item = TypeVar("Item")


class Interrupts:
    """Notes the first Ctrl-C for the length of a `with` block; the second one acts at once.

    Args:
        polite: False: the first one acts at once too, as where other processes would
            wait for this one in vain.

    Attributes:
        pending: Whether there was one.
    """

    def __init__(self, *, polite: bool = True) -> None:
        self.pending = False
        self._polite = polite

    def __enter__(self) -> "Interrupts":
        self._previous: Any = None
        if (
            self._polite and threading.current_thread() is threading.main_thread()
        ):  # no other gets signals
            self._previous = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)

    def watch(self, items: Iterable[Item]) -> Iterator[Item]:
        """Yields items until there is a Ctrl-C."""
        for item in items:
            if self.pending:
                return
            yield item

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.pending = True
        signal.signal(number, self._previous)
