"""Files and folders that are written whole or not at all."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from configs.errors import RunError

_PART = ".part-"


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yields a free path to write a file or folder to, which replaces `path` after the block.

    Folders above `path` are made. After an error in the block nothing is left of it, and `path`
    is as it was.

    Raises:
        OSError: If it cannot be written, a full disk included.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=_PART) as folder:
        part = Path(folder) / path.name
        yield part
        for file in (part, *part.rglob("*")):
            if file.is_file():
                with file.open("rb") as stream:
                    os.fsync(stream.fileno())
        if path.is_dir() and part.is_dir():
            path.rename(Path(folder) / f"{path.name}.old")
        part.replace(path)


def make_folder(path: Path) -> None:
    """Makes a folder for output and those above it, unless it exists.

    Raises:
        RunError: If it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(
            f"The folder {path} cannot be made ({error.strerror}). Choose another --output."
        ) from error


def write_atomic(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all; see `atomic_path`."""
    with atomic_path(path) as part:
        part.write_bytes(content)


def remove_parts(folder: Path) -> None:
    """Removes what killed processes left half written in a folder and its subfolders."""
    for part in folder.rglob(f"{_PART}*"):
        shutil.rmtree(part, ignore_errors=True)
