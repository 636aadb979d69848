"""Arrays that may be larger than memory."""

import logging
import math
import shutil
import tempfile
import weakref
from pathlib import Path

import numpy as np

from configs.errors import StoreError
from ensemble.system.limits import memory_limit

log = logging.getLogger(__name__)

_SHARE_OF_MEMORY = 0.5  # for all arrays; what goes beyond stays on the disk
_held = [0]  # bytes of arrays in memory


def allocate(shape: tuple[int, ...], dtype: str, *, folder: Path, what: str) -> np.ndarray:
    """Returns an array to be filled; if it is too large for memory, one in a file.

    Args:
        shape: Its shape.
        dtype: Its dtype.
        folder: Folder of the file, which is removed when the process ends.
        what: Content, for messages.

    Raises:
        StoreError: If the disk has no room for it.
    """
    needed = math.prod(shape) * np.dtype(dtype).itemsize
    if fits_memory(needed):
        array = np.empty(shape, dtype)
        _held[0] += needed
        weakref.finalize(array, _release, needed)
        return array
    log.info(
        "%s: %.1f GB are too many for the memory and are read from the disk", what, needed / 1e9
    )
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise StoreError(
            f"{what} take {needed / 1e9:.2f} GB. With them arrays would take more than half of the "
            f"memory, and the disk of {folder} has {free / 1e9:.2f} GB left. Free some space, "
            "choose another folder with --cache, or use --fusion pooled, fewer --views or a "
            "smaller --image-size."
        )
    with tempfile.TemporaryFile(dir=folder) as file:
        return np.memmap(file, dtype, "w+", shape=shape)


def fits_memory(needed: int) -> bool:
    """Returns whether so many bytes more fit into the half of memory that arrays may take."""
    memory = memory_limit()
    return memory is None or _held[0] + needed <= _SHARE_OF_MEMORY * memory


def _release(size: int) -> None:
    _held[0] -= size
