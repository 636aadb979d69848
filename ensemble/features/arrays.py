"""Arrays that may be larger than the memory."""

import logging
import math
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np

from configs.errors import StoreError

log = logging.getLogger(__name__)

_SHARE_OF_MEMORY = 0.5  # for one array; larger ones stay on the disk and are read bit by bit


def allocate(shape: tuple[int, ...], dtype: str, *, folder: Path, what: str) -> np.ndarray:
    """Returns an array to be filled; if it is too large for the memory, one in a file.

    Args:
        shape: Its shape.
        dtype: Its dtype.
        folder: Where the file lies, which vanishes with the process.
        what: What is kept in it, for messages.

    Raises:
        StoreError: If the disk has no room for it.
    """
    needed = math.prod(shape) * np.dtype(dtype).itemsize
    if fits_memory(needed):
        return np.empty(shape, dtype)
    log.info(
        "%s: %.1f GB are too many for the memory and are read from the disk", what, needed / 1e9
    )
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise StoreError(
            f"{what} take {needed / 1e9:.2f} GB, more than half of the memory and more than the "
            f"{free / 1e9:.2f} GB left on the disk of {folder}. Free some space, choose another "
            "folder with --cache, or use --fusion pooled, fewer --views or a smaller --image-size."
        )
    with tempfile.TemporaryFile(dir=folder) as file:
        return np.memmap(file, dtype, "w+", shape=shape)


def fits_memory(needed: int) -> bool:
    """Tells whether so many bytes may stay in the memory: half of it at most."""
    memory = _memory()
    return memory is None or needed <= _SHARE_OF_MEMORY * memory


def _memory() -> int | None:
    """Returns the machine's memory in bytes, None where the system does not tell."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None
