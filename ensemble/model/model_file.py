"""Model files, which are checked before they are loaded, so that hostile ones do no harm.

Keras's safe mode runs no code from the file. What is checked here is what it leaves: archives
that unpack to more than their size, sizes that fill the memory, and unclear errors.

`keras.saving.load_model` reads a file without this package. What Keras has no place for is in
one more member of the archive, `ensemble.json`; docs/howto/model_file.md describes it.
"""

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import keras
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from configs.errors import RunError, reason_of
from configs.fields import describe_errors
from ensemble.model.legacy_layers import LEGACY_CLASSES, ClassProbabilities, replace_legacy_layers

_CONFIG, _WEIGHTS, _RECORD = "config.json", "model.weights.h5", "ensemble.json"
_CONFIG_LIMIT = 64 * 2**20  # bytes; four large branches need 2 MB
_RECORD_LIMIT = 2**20  # bytes; a thousand class names need 20 kB
_MAX_DEPTH = 20  # levels of JSON in the record
_MAX_REASON = 120  # characters of Keras's messages
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
        raise load_error(path, reason_of(error)[:_MAX_REASON]) from error


def read_protocol(path: str | Path) -> dict[str, Any]:
    """Returns how images and labels were prepared for a model; empty if not recorded.

    Raises:
        RunError: If the file is missing or damaged.
    """
    record = _check(Path(path))
    return record.protocol if record else {}


def load_error(path: str | Path, reason: str) -> RunError:
    """Returns the error for a file that is not an ensemble."""
    return RunError(f"{path} holds no ensemble that can be loaded ({reason}).")


def _check(path: Path) -> ModelRecord | None:
    """Checks an archive and returns its record, None if it has none, as in early files."""
    if not path.is_file():
        raise load_error(path, "there is no such file")
    if not zipfile.is_zipfile(path):
        raise load_error(path, "it is damaged or no .keras file")
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        if not {_CONFIG, _WEIGHTS} <= set(entries):
            raise load_error(path, f"it lacks {_CONFIG} or {_WEIGHTS}")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries.values()):
            raise load_error(path, "it is compressed, which Keras's own files are not")
        if entries[_CONFIG].file_size > _CONFIG_LIMIT:
            raise load_error(path, f"its {_CONFIG} is larger than that of any model")
        if _RECORD in entries and entries[_RECORD].file_size > _RECORD_LIMIT:
            raise load_error(path, f"its {_RECORD} is larger than that of any model")
        objects = list(_objects(json.loads(archive.read(_CONFIG))))
        record = archive.read(_RECORD) if _RECORD in entries else None
        most = entries[_WEIGHTS].file_size
    for entry in objects:
        if reason := _find_error(entry, most):
            raise load_error(path, reason)
    return None if record is None else _read_record(path, record)


def _read_record(path: Path, content: bytes) -> ModelRecord:
    values = json.loads(content)
    if _depth(values) > _MAX_DEPTH:
        raise load_error(path, f"its {_RECORD} is nested more than {_MAX_DEPTH} levels deep")
    try:
        return ModelRecord.model_validate(values)
    except ValidationError as error:
        reason = describe_errors(error, ModelRecord)[0].rstrip(".")
        raise load_error(path, f"its {_RECORD} is not valid: {reason[:_MAX_REASON]}") from error


def _read_legacy(path: Path, model: keras.Model) -> tuple[keras.Model, ModelRecord]:
    """Returns model and record of a file of version 0.1, in standard layers."""
    try:
        last = model.get_layer("classifier").get_layer("probabilities")
        maps = model.get_layer("extractor").output
    except (AttributeError, ValueError) as error:
        raise load_error(path, "it is another kind of model") from error
    if not isinstance(last, ClassProbabilities):
        raise load_error(path, f"it has no {_RECORD}, which names its classes")
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


def _find_error(entry: dict[str, Any], most: int) -> str | None:
    """Returns what is wrong with a JSON object of the configuration.

    Args:
        entry: The object.
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
