"""Shards: files of features of some hundred images from one frozen branch in one view.

A shard is an HDF5 file named by the SHA-256 of its content, so that damage is detected before
HDF5 reads it. It holds two plain datasets:

    images     (n, 32) uint8: SHA-256 of each image
    features   (n, h, w, c) float16 or float32
"""

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from ensemble.system.files import write_atomic

_DIGEST = 32  # bytes of SHA-256
_MAX_BYTES = 2**31  # no shard comes near it


class ShardError(Exception):
    """A shard that cannot be used; the text is the reason."""


def write_shard(
    folder: Path, key: str, view: str, digests: Sequence[bytes], features: np.ndarray
) -> Path:
    """Writes a shard, whole or not at all, and returns its path.

    Args:
        folder: An existing folder.
        key: What decides the features, as text.
        view: Name of the view.
        digests: SHA-256 of each image.
        features: Shape `(images, h, w, c)`.
    """
    memory = io.BytesIO()  # HDF5 does not handle a full disk well
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

    Raises:
        ShardError: If the file is missing, damaged or of another key or view.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
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
        raise ShardError(f"is not a shard: {error}") from error


def _plain(file: h5py.File, name: str, dtype: np.dtype | None, rank: int) -> np.ndarray:
    """Reads a dataset of the file itself; h5py would follow links to other files."""
    link = file.get(name, getlink=True)
    if not isinstance(link, h5py.HardLink):
        raise ValueError(f"{name} is a link")
    dataset = file[name]
    if dataset.is_virtual or dataset.external or dataset.ndim != rank:
        raise ValueError(f"{name} is not a plain dataset")
    if dtype is not None and dataset.dtype != dtype:
        raise ValueError(f"{name} is {dataset.dtype}")
    if dataset.nbytes > _MAX_BYTES:
        raise ValueError(f"{name} is too large")
    return dataset[()]
