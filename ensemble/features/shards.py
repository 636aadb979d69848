"""One file of features: some hundred images seen by one frozen branch in one view.

A shard is an HDF5 file whose name is the SHA-256 of its content, so that any
damage shows before HDF5 reads a byte of it. It holds two plain datasets:

    images     (n, 32) uint8: SHA-256 of each image
    features   (n, h, w, c) float16 or float32, row after row
"""

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from ensemble.system.files import write_atomic

_DIGEST = 32  # bytes of SHA-256
_LARGEST = 2**31  # bytes: no shard comes near it


class ShardError(Exception):
    """A shard that cannot be used; its text says why in a few words."""


def write_shard(
    folder: Path, key: str, view: str, digests: Sequence[bytes], features: np.ndarray
) -> Path:
    """Writes a shard that is there whole or not at all, and returns its path.

    Args:
        folder: An existing folder.
        key: What decides the features, as text.
        view: Name of the view.
        digests: SHA-256 of each image.
        features: Shape `(images, h, w, c)`.

    Raises:
        OSError: If it cannot be written, a full disk included.
    """
    memory = io.BytesIO()  # HDF5 itself meets no disk, and so no full one
    with h5py.File(memory, "w", libver="latest") as file:
        file.attrs["key"] = key
        file.attrs["view"] = view
        file["images"] = np.frombuffer(b"".join(digests), np.uint8).reshape(-1, _DIGEST)
        file["features"] = features
    content = memory.getvalue()
    path = folder / f"{hashlib.sha256(content).hexdigest()}.h5"
    write_atomic(path, content)
    return path


def read_digests(path: Path) -> list[bytes]:
    """Returns the SHA-256 of each image of a shard, without checking the shard.

    Raises:
        ShardError: If it cannot be opened as one.
    """
    try:
        with h5py.File(path, "r", locking=False) as file:
            images = _plain(file, "images", np.dtype(np.uint8), 2)
            return [row.tobytes() for row in images]
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise ShardError(f"cannot be opened: {error}") from error


def read_shard(path: Path, key: str, view: str) -> np.ndarray:
    """Returns the features of a shard, shape `(images, h, w, c)`.

    Args:
        path: Of the shard.
        key: What must have decided the features.
        view: Name of the view that they must be of.

    Raises:
        ShardError: If the file is missing, damaged or of another key or view.
    """
    try:
        if path.stat().st_size > _LARGEST:
            raise ShardError("too large")
        content = path.read_bytes()
    except OSError as error:
        raise ShardError(f"cannot be read: {error.strerror}") from error
    if hashlib.sha256(content).hexdigest() != path.stem:
        raise ShardError("its checksum is wrong")
    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            if (file.attrs["key"], file.attrs["view"]) != (key, view):
                raise ShardError("it belongs to other features")
            return _plain(file, "features", None, 4)
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise ShardError(f"is no shard: {error}") from error


def _plain(file: h5py.File, name: str, dtype: np.dtype | None, rank: int) -> np.ndarray:
    """Reads a dataset that lies in the file itself: h5py would follow links out of it."""
    link = file.get(name, getlink=True)
    if not isinstance(link, h5py.HardLink):
        raise ValueError(f"{name} is a link")
    dataset = file[name]
    if dataset.is_virtual or dataset.external or dataset.ndim != rank:
        raise ValueError(f"{name} is no plain dataset")
    if dtype is not None and dataset.dtype != dtype:
        raise ValueError(f"{name} is {dataset.dtype}")
    if dataset.nbytes > _LARGEST:
        raise ValueError(f"{name} is too large")
    return dataset[()]
