"""A model file is looked at before it is loaded, so that a hostile or damaged one does nothing.

Keras builds layers from `config.json` before it reads weights. Its safe mode runs no
code from the file; what is checked here is what it leaves: an archive that unpacks to
more than it is, sizes that fill the memory, and errors that nobody understands.
"""

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras

from configs.errors import RunError
from ensemble.layers import ClassProbabilities
from ensemble.training.optimizers import FusedAdam

_CONFIG, _WEIGHTS = "config.json", "model.weights.h5"
_CONFIG_LIMIT = 64 * 2**20  # bytes; four large branches need 2 MB
_LONGEST = 120  # characters of Keras's own words
_WIDTHS = ("units", "filters", "input_dim", "output_dim", "depth_multiplier")

# A file names the optimizer that it was trained with, although nothing trains it here.
_OWN = {f"ensemble>{known.__name__}": known for known in (ClassProbabilities, FusedAdam)}


def load_network(path: str | Path) -> keras.Model:
    """Loads a `.keras` file in Keras's safe mode, uncompiled.

    Raises:
        RunError: If it is missing, damaged, larger inside than outside, or names code.
    """
    path = Path(path)
    try:
        _check(path)
        return keras.saving.load_model(path, custom_objects=_OWN, safe_mode=True, compile=False)
    except RunError:
        raise
    except Exception as error:  # Keras raises many kinds, from OSError to TypeError
        raise refuse(path, _first_line(error)) from error


def refuse(path: str | Path, reason: str) -> RunError:
    """Returns the error for a file that is no ensemble."""
    return RunError(f"{path} holds no ensemble that can be loaded ({reason}).")


def _check(path: Path) -> None:
    if not path.is_file():
        raise refuse(path, "there is no such file")
    if not zipfile.is_zipfile(path):
        raise refuse(path, "it is damaged or no .keras file")
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        if not {_CONFIG, _WEIGHTS} <= set(entries):
            raise refuse(path, f"it lacks {_CONFIG} or {_WEIGHTS}")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries.values()):
            raise refuse(path, "it is compressed, which Keras's own files are not")
        if entries[_CONFIG].file_size > _CONFIG_LIMIT:
            raise refuse(path, f"its {_CONFIG} is larger than that of any model")
        objects = list(_objects(json.loads(archive.read(_CONFIG))))
        most = entries[_WEIGHTS].file_size
    for entry in objects:
        reason = _mistake(entry, most)
        if reason:
            raise refuse(path, reason)


def _mistake(entry: dict[str, Any], most: int) -> str | None:
    """Returns what is wrong with one object of the configuration.

    Args:
        entry: A JSON object.
        most: Bytes of all weights; a layer cannot be wider than that.
    """
    name = entry.get("class_name")
    if name in {"Lambda", "__lambda__"}:
        return "it holds code, a Lambda layer, which is not run"
    registered = entry.get("registered_name")
    module = str(entry.get("module") or "")
    if isinstance(registered, str) and not module.startswith("keras."):
        known = keras.saving.get_registered_object(registered, custom_objects=_OWN)
        if known is None:
            return f"it needs {registered!r}, which nothing here has registered"
    for width in _WIDTHS:
        value = entry.get(width)
        if isinstance(value, int) and value > most:
            return f"its {width} of {value} are more than its weights"
    return None


def _objects(node: Any) -> Iterator[dict[str, Any]]:
    """Yields all JSON objects below a node, at any depth."""
    waiting = [node]
    while waiting:
        here = waiting.pop()
        if isinstance(here, dict):
            yield here
            waiting += here.values()
        elif isinstance(here, list):
            waiting += here


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0][:_LONGEST].rstrip(".") if lines else type(error).__name__
