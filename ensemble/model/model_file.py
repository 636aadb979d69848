"""A model file is looked at before it is loaded, so that a hostile or damaged one does nothing.

Keras builds layers from `config.json` before it reads weights. Its safe mode runs no
code from the file; what is checked here is what it leaves: an archive that unpacks to
more than it is, sizes that fill the memory, and errors that nobody understands.

The network consists of standard Keras layers, so `keras.saving.load_model` reads the
file without this package. What Keras has no place for is one more member of the
archive, `ensemble.json`; docs/howto/model_file.md describes it.
"""

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import keras
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from configs.errors import RunError
from configs.fields import describe_errors
from ensemble.model.legacy_layers import LEGACY_CLASSES, ClassProbabilities, replace_legacy_layers

_CONFIG, _WEIGHTS, _RECORD = "config.json", "model.weights.h5", "ensemble.json"
_CONFIG_LIMIT = 64 * 2**20  # bytes; four large branches need 2 MB
_RECORD_LIMIT = 2**20  # bytes; a thousand class names need 20 kB
_MAX_DEPTH = 20  # levels of JSON in the record
_LONGEST = 120  # characters of Keras's own words
_WIDTHS = ("units", "filters", "input_dim", "output_dim", "depth_multiplier")


def _check_unique(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) < len(names):
        raise ValueError("class names must differ from each other")
    return names


class ModelRecord(BaseModel):
    """Description of an ensemble inside its model file.

    Args:
        version: Version of this format.
        classes: Class names, in the order of the probabilities.
        temperature: Divisor of the logits; the network applies it.
        image_size: Height and width of the images, in pixels.
        branches: Branch label to the shape `(h, w, c)` of its reduced feature map.
        protocol: How images and labels were prepared.
        source: Where the model comes from.
    """

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)

    version: Literal[1] = 1
    classes: Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_check_unique)]
    temperature: float = Field(1.0, gt=0)
    image_size: int = Field(ge=1)
    branches: dict[str, tuple[int, int, int]]
    protocol: dict[str, Any] = {}
    source: dict[str, Any] = {}


def save_network(path: str | Path, model: keras.Model, record: ModelRecord) -> None:
    """Writes a `.keras` file with its record."""
    model.save(path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(_RECORD, record.model_dump_json(indent=2))


def load_network(path: str | Path) -> tuple[keras.Model, ModelRecord]:
    """Loads a `.keras` file in Keras's safe mode, uncompiled.

    Raises:
        RunError: If it is missing, damaged, larger inside than outside, or names code.
    """
    path = Path(path)
    try:
        record = _check(path)
        model = keras.saving.load_model(
            path, custom_objects=LEGACY_CLASSES, safe_mode=True, compile=False
        )
        return (model, record) if record else _read_legacy(path, model)
    except RunError:
        raise
    except Exception as error:  # Keras raises many kinds, from OSError to TypeError
        raise refuse(path, _first_line(error)) from error


def read_protocol(path: str | Path) -> dict[str, Any]:
    """Returns how images and labels were prepared for a model; empty if not recorded.

    Raises:
        RunError: If the file is missing or damaged.
    """
    record = _check(Path(path))
    return record.protocol if record else {}


def refuse(path: str | Path, reason: str) -> RunError:
    """Returns the error for a file that is no ensemble."""
    return RunError(f"{path} holds no ensemble that can be loaded ({reason}).")


def _check(path: Path) -> ModelRecord | None:
    """Checks an archive and returns its record; None: it is older than records."""
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
        if _RECORD in entries and entries[_RECORD].file_size > _RECORD_LIMIT:
            raise refuse(path, f"its {_RECORD} is larger than that of any model")
        objects = list(_objects(json.loads(archive.read(_CONFIG))))
        record = archive.read(_RECORD) if _RECORD in entries else None
        most = entries[_WEIGHTS].file_size
    for entry in objects:
        reason = _mistake(entry, most)
        if reason:
            raise refuse(path, reason)
    return None if record is None else _read_record(path, record)


def _read_record(path: Path, content: bytes) -> ModelRecord:
    values = json.loads(content)
    if _depth(values) > _MAX_DEPTH:
        raise refuse(path, f"its {_RECORD} is nested more than {_MAX_DEPTH} levels deep")
    try:
        return ModelRecord.model_validate(values)
    except ValidationError as error:
        reason = describe_errors(error, ModelRecord)[0].rstrip(".")
        raise refuse(path, f"its {_RECORD} is not valid: {reason[:_LONGEST]}") from error


def _read_legacy(path: Path, model: keras.Model) -> tuple[keras.Model, ModelRecord]:
    """Returns what a file without a record holds, in standard layers."""
    try:
        last = model.get_layer("classifier").get_layer("probabilities")
        maps = model.get_layer("extractor").output
    except (AttributeError, ValueError) as error:
        raise refuse(path, "it is another kind of model") from error
    if not isinstance(last, ClassProbabilities):
        raise refuse(path, f"it has no {_RECORD}, which names its classes")
    record = ModelRecord(
        classes=last.classes,
        temperature=last.temperature,
        image_size=model.input_shape[1],
        branches={label: feature_map.shape[1:] for label, feature_map in maps.items()},
    )
    return replace_legacy_layers(model), record


def _depth(node: Any) -> int:
    """Returns the number of nested JSON objects and arrays."""
    if isinstance(node, dict):
        node = list(node.values())
    return 1 + max(map(_depth, node), default=0) if isinstance(node, list) else 0


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
        known = keras.saving.get_registered_object(registered, custom_objects=LEGACY_CLASSES)
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
