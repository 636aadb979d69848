"""Exported models, run by small runtimes without Keras and TensorFlow.

An export is a folder with a model in one format and `model.json`; docs/export.md describes it.
"""

import importlib.util
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from branches.checksums import file_checksum
from configs.errors import ConfigError, DataError, RunError, reason_of
from configs.registry import unknown
from ensemble.system.cores import count_cores

Format = Literal["onnx", "openvino", "saved_model", "litert"]
CARD = "model.json"
CARD_VERSION = 1

Runner = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class ExportedModel:
    """An exported ensemble that can be called, by one thread at a time.

    Args:
        classes: Class names, in the order of the probabilities.
        image_size: Height and width of the images, in pixels.
        card: All of `model.json`.
    """

    classes: tuple[str, ...]
    image_size: int
    card: Mapping[str, Any]
    _run: Runner

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Returns class probabilities.

        Args:
            images: Shape `(n, height, width, 3)`, RGB of 0..255, uint8 or float; any n.

        Returns:
            Shape `(n, len(classes))`, float32.

        Raises:
            DataError: If the images have another shape.
        """
        images = np.asarray(images)
        expected = (self.image_size, self.image_size, 3)
        if images.shape[1:] != expected:
            raise DataError(
                f"The model takes images of shape {('n', *expected)}. Received: {images.shape}."
            )
        if not len(images):
            return np.empty((0, len(self.classes)), "float32")
        return self._run(np.ascontiguousarray(images, "float32"))


def load_exported(folder: str | Path) -> ExportedModel:
    """Loads an exported model into the runtime of its format.

    Args:
        folder: What `python -m ensemble.export` wrote.

    Raises:
        RunError: If the folder holds no export, or a damaged one.
        ConfigError: If the runtime is not installed.
    """
    folder = Path(folder)
    card = read_card(folder)
    runtime = RUNTIMES[card["format"]]
    _require(runtime.package)
    for name, checksum in card["files"].items():
        _check_file(folder / name, checksum)
    try:
        run = runtime.load(folder / runtime.file)
    except Exception as error:  # each runtime has errors of its own
        raise RunError(
            f"{folder} cannot be run by {runtime.package} ({reason_of(error)}). "
            "Export the run again, with the backend tensorflow."
        ) from error
    return ExportedModel(tuple(card["classes"]), card["image_size"], card, run)


def is_export(folder: Path) -> bool:
    """Returns whether a folder is one that `ensemble.export` wrote."""
    return (folder / CARD).is_file()


def read_card(folder: Path) -> dict[str, Any]:
    """Reads an export's `model.json`.

    Raises:
        RunError: If it is missing, damaged or of another version of this package.
    """
    path = folder / CARD
    try:
        card = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise RunError(
            f"{folder} holds no exported model: it has no {CARD} that can be read. "
            "Name a folder that ensemble.export has written."
        ) from error
    except ValueError as error:
        raise RunError(f"{path} is damaged ({error}). Export the run again.") from error
    if problem := _find_problem(card):
        raise RunError(f"{path} {problem}. Export the run again.")
    return card


def check_packages(format: Format, *, verify: bool) -> None:
    """Checks that the packages for an export, and to verify it, are installed.

    Raises:
        ConfigError: Naming what is missing.
    """
    runtime = RUNTIMES[format]
    _require(*runtime.converters, *([runtime.package] if verify else []))


def import_openvino() -> Any:
    """Imports OpenVINO without its telemetry, which would use the network.

    It would also fork this process from a thread, after which NumPy's products in other threads
    may never end.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    return import_module("openvino")


def _require(*packages: str) -> None:
    missing = [
        package
        for package in dict.fromkeys(packages)
        if importlib.util.find_spec(package.replace("-", "_")) is None
    ]
    if missing:
        raise ConfigError(
            f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed. "
            "Use pip install 'multibranch-ensemble[export]'."
        )


def _find_problem(card: Any) -> str | None:
    """Returns what is wrong with a card, or None."""
    if not isinstance(card, dict) or card.get("version") != CARD_VERSION:
        return f"is not a card of version {CARD_VERSION}"
    if (format := str(card.get("format"))) not in RUNTIMES:
        return f"has a mistake: {unknown('format', format, list(RUNTIMES)).rstrip('.')}"
    size, classes, files = card.get("image_size"), card.get("classes"), card.get("files")
    is_valid = {
        "image_size": isinstance(size, int) and size > 0,
        "source": isinstance(card.get("source"), dict),
        "faces": isinstance(card.get("faces"), dict | None),
        "classes": isinstance(classes, list)
        and bool(classes)
        and all(isinstance(name, str) for name in classes),
        "files": isinstance(files, dict) and RUNTIMES[format].file in files,
    }
    return next((f"has no valid `{name}`" for name, valid in is_valid.items() if not valid), None)


def _check_file(path: Path, checksum: str) -> None:
    try:
        found = file_checksum(path)
    except OSError as error:
        raise RunError(
            f"{path} cannot be read ({error.strerror}). Export the run again."
        ) from error
    if found != checksum:
        raise RunError(
            f"{path} is damaged or changed: its checksum is not that of {CARD}. "
            "Export the run again."
        )


def _load_onnx(path: Path) -> Runner:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # Threads that spin between batches would occupy the cores that decode the next one.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda images: session.run(None, {name: images})[0]


def _load_openvino(path: Path) -> Runner:
    model = (
        import_openvino()
        .Core()
        .compile_model(
            path if path.suffix == ".xml" else path.parent,  # a SavedModel is a folder
            "CPU",
            {"INFERENCE_PRECISION_HINT": "f32"},  # newer CPUs would compute in bfloat16
        )
    )
    return lambda images: model(images)[0].copy()  # the next call would write over it


def _load_litert(path: Path) -> Runner:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=count_cores())
    image = interpreter.get_input_details()[0]["index"]
    output = interpreter.get_output_details()[0]["index"]
    allocated = -1  # images

    def run(images: np.ndarray) -> np.ndarray:
        nonlocal allocated
        if len(images) != allocated:
            interpreter.resize_tensor_input(image, images.shape)
            interpreter.allocate_tensors()
            allocated = len(images)
        interpreter.set_tensor(image, images)
        interpreter.invoke()
        return interpreter.get_tensor(output)

    return run


class Runtime(NamedTuple):
    """The runtime of a format.

    Args:
        package: Its package on PyPI.
        file: The model's file in the folder of the export.
        load: Returns a callable for that file.
        converters: Packages besides TensorFlow that an export needs.
    """

    package: str
    file: str
    load: Callable[[Path], Runner]
    converters: Sequence[str] = ()


RUNTIMES: dict[str, Runtime] = {
    "onnx": Runtime("onnxruntime", "model.onnx", _load_onnx, ("tf2onnx", "onnx")),
    "openvino": Runtime("openvino", "model.xml", _load_openvino, ("openvino",)),
    "saved_model": Runtime("openvino", "saved_model.pb", _load_openvino),
    "litert": Runtime("ai-edge-litert", "model.tflite", _load_litert),
}
