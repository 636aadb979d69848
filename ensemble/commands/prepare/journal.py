"""A record of finished pieces of work, so that an interrupted command can resume."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from configs.errors import DataError
from ensemble.system.locks import LockedError, locked


class Journal:
    """A file of JSON lines: the settings of the work, then one record per finished piece.

    Args:
        path: The file, in an existing folder.

    Attributes:
        records: Finished pieces, by the "name" in each record.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.records: dict[str, dict[str, Any]] = {}

    @contextmanager
    def opened(self, settings: Mapping[str, Any]) -> Iterator[None]:
        """Reads the finished pieces and lets one process `add` further ones.

        A line that was interrupted while being written does not count.

        Args:
            settings: Settings that the results depend on.

        Raises:
            DataError: If the work was begun with other settings or is in progress elsewhere.
        """
        try:
            with locked(self._path.with_suffix(".lock"), timeout=0):
                self._read(json.loads(json.dumps(settings)))
                with self._path.open("ab", buffering=0) as self._file:
                    yield
        except LockedError as error:
            raise DataError(
                f"Another process is at work in '{self._path.parent}' ({error}). "
                "Wait for its end or choose another --output."
            ) from error

    def add(self, record: dict[str, Any]) -> None:
        """Writes the record of a finished piece, under its "name".

        Raises:
            DataError: If it cannot be written.
        """
        self.records[record["name"]] = record
        self._write_line(record)

    def _read(self, settings: dict[str, Any]) -> None:
        lines = self._path.read_bytes().splitlines(keepends=True) if self._path.is_file() else []
        if lines and not lines[-1].endswith(b"\n"):
            lines.pop()
            with self._path.open("r+b") as file:
                file.truncate(sum(map(len, lines)))
        if not lines:
            with self._path.open("wb", buffering=0) as self._file:
                self._write_line(settings)
            return
        begun, *records = map(json.loads, lines)
        if begun != settings:
            raise DataError(
                f"'{self._path.parent}' was begun with other settings "
                f"({_difference(begun, settings)}). Use those, choose another --output, or "
                "remove that folder."
            )
        self.records = {record["name"]: record for record in records}

    def _write_line(self, record: dict[str, Any]) -> None:
        try:
            self._file.write((json.dumps(record, ensure_ascii=False) + "\n").encode())
        except OSError as error:
            raise DataError(
                f"'{self._path}' cannot be written ({error.strerror or error}). "
                "Free some space or choose another --output."
            ) from error


def _difference(begun: dict[str, Any], settings: dict[str, Any]) -> str:
    return ", ".join(
        f"{key}: {begun.get(key)} then, {settings.get(key)} now"
        for key in sorted({*begun, *settings})
        if begun.get(key) != settings.get(key)
    )
