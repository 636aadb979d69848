"""Checksums that tell whether two branches compute the same."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import keras


def file_checksum(path: str | Path) -> str:
    """Returns a file's SHA-256, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def weights_checksum(model: "keras.Model") -> str:
    """Returns the SHA-256 of all weights of a model, in order, as float32.

    It does not depend on where they came from: a file, a download and random
    numbers with the same values have the same checksum.
    """
    digest = hashlib.sha256()
    for variable in model.weights:
        digest.update(np.ascontiguousarray(variable.numpy(), dtype="<f4").tobytes())
    return digest.hexdigest()


def architecture_checksum(model: "keras.Model") -> str:
    """Returns the SHA-256 of a model's layers and their settings, in order.

    Names do not count, as Keras numbers layers as they come, nor does the way in
    which layers are wired.
    """
    digest = hashlib.sha256()
    for layer in _layers(model):
        settings = {
            key: value
            for key, value in layer.get_config().items()
            if key not in {"name", "trainable"}
        }
        text = json.dumps([type(layer).__name__, settings], sort_keys=True, default=repr)
        digest.update(text.encode())
    return digest.hexdigest()


def _layers(model: "keras.Model") -> Iterator["keras.Layer"]:
    for layer in model.layers:
        if hasattr(layer, "layers"):
            yield from _layers(layer)
        else:
            yield layer
