"""Checksums of files, and of the weights and the architecture of branches."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import keras

_NAMES = {"name", "trainable", "module", "registered_name"}  # they decide no number


def file_checksum(path: str | Path) -> str:
    """Returns a file's SHA-256, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def weights_checksum(model: "keras.Model") -> str:
    """Returns the SHA-256 of all weights of a model, in order, as float32."""
    digest = hashlib.sha256()
    for variable in model.weights:
        digest.update(np.ascontiguousarray(variable.numpy(), dtype="<f4").tobytes())
    return digest.hexdigest()


def architecture_checksum(model: "keras.Model") -> str:
    """Returns the SHA-256 of a model's layers, settings and connections, whatever their names."""
    text = json.dumps(_without_names(model.get_config(), {}), sort_keys=True, default=repr)
    return hashlib.sha256(text.encode()).hexdigest()


def _without_names(value: Any, places: Mapping[str, int]) -> Any:
    """Replaces the names of layers in a part of a model's configuration by their positions."""
    if isinstance(value, Mapping):
        if "DTypePolicy" in str(value.get("class_name")):  # whose name is its setting
            return value
        if layers := [each for each in value.get("layers") or () if "config" in each]:
            places = {each["config"]["name"]: place for place, each in enumerate(layers)}
        return {
            key: _without_names(each, places) for key, each in value.items() if key not in _NAMES
        }
    if not isinstance(value, list | tuple):
        return value
    if len(value) == 3 and isinstance(value[0], str):  # a layer, its call and its output
        return [places.get(value[0], value[0]), *value[1:]]
    return [_without_names(each, places) for each in value]
