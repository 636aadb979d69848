"""Exports an ensemble for another runtime, and compares its predictions with those of Keras."""

import errno
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import keras
import numpy as np

from branches.checksums import file_checksum
from configs.errors import ConfigError, RunError, reason_of
from configs.schema import FaceConfig
from ensemble.data.synthetic_faces import EXPRESSIONS, draw_face
from ensemble.model.composition import MultiBranchModel
from ensemble.model.conversion import Writer, convert
from ensemble.model.precision import in_precision
from ensemble.model.runtimes import (
    CARD,
    CARD_VERSION,
    RUNTIMES,
    ExportedModel,
    Format,
    check_packages,
    load_exported,
)
from ensemble.runs.environment import package_versions
from ensemble.runs.run import Run
from ensemble.system.files import atomic_path

TOLERANCE = 1e-4  # largest difference of a probability from that of Keras


@dataclass(frozen=True)
class Export:
    """An export.

    Args:
        folder: Its folder, for `load_exported`.
        size: Size of the model's files, in bytes.
        difference: Largest difference of a probability from that of Keras; None if not verified.
    """

    folder: Path
    size: int
    difference: float | None


def export_run(
    run: Run, format: Format, folder: Path | None = None, *, verify: bool = False
) -> Export:
    """Exports a run's model.

    Args:
        run: A finished run.
        format: "onnx", "openvino", "saved_model" or "litert".
        folder: Output folder; None: `exported/FORMAT` within the run.
        verify: As in `export_model`.

    Raises:
        UserError: As `export_model`, or if the run cannot be read.
    """
    source = {"run": run.name, "model_sha256": file_checksum(run.folder / "model.keras")}
    folder = folder or run.folder / "exported" / format
    faces = run.config.data.faces
    return export_model(run.load_model(), format, folder, verify=verify, source=source, faces=faces)


def export_model(
    ensemble: MultiBranchModel,
    format: Format,
    folder: str | Path,
    *,
    verify: bool = False,
    source: Mapping[str, str] | None = None,
    faces: FaceConfig | None = None,
) -> Export:
    """Writes an ensemble and its `model.json` into a folder, which appears whole or not at all.

    Args:
        ensemble: The model, which is exported in float32.
        format: "onnx", "openvino", "saved_model" or "litert".
        folder: A new one, or an earlier export, which is replaced.
        verify: Whether to run the export on random and synthetic images and to reject
            it if it differs from Keras.
        source: Origin of the model, for `model.json`.
        faces: Face detection of its training images, for predictions with the export.

    Raises:
        ConfigError: If a package is missing, the backend is another or the model
            cannot be converted.
        RunError: If the folder cannot be written or holds something else, or if
            a probability differs by more than 1e-4 or a most probable class differs.
    """
    folder = Path(folder)
    check_packages(format, verify=verify)
    _check_replaceable(folder)
    model = _in_float32(ensemble.model)
    write = convert(model, format)
    if verify and keras.backend.backend() == "jax":
        raise ConfigError(
            "The runtime that verifies a SavedModel cannot run one made by JAX. "
            "Set KERAS_BACKEND to tensorflow, which reads a run of any backend."
        )
    card = _describe(ensemble, format, source or {}, faces)
    try:
        with atomic_path(folder) as part:
            size = _write(part, folder, write, card)
            difference = compare(model, load_exported(part)) if verify else None
    except OSError as error:
        raise _unwritable(folder, error) from error
    return Export(folder, size, difference)


def compare(model: keras.Model, exported: ExportedModel) -> float:
    """Returns the largest difference between probabilities of Keras and of an exported model.

    Both are run on fixed images, the exported model in one batch and one by one.

    Args:
        model: Image to probabilities.
        exported: The same, in a runtime.

    Raises:
        RunError: If it is above `TOLERANCE`, or a most probable class differs.
    """
    images = fixture_images(exported.image_size)
    expected = model.predict(images, verbose=0)
    batch = exported(images)
    single = np.concatenate([exported(image[None]) for image in images])
    difference = max(float(np.abs(found - expected).max()) for found in (batch, single))
    if not difference <= TOLERANCE:  # or it is not a number
        raise RunError(
            f"The exported model differs from Keras by {difference:.1e} in a probability, "
            f"where {TOLERANCE:.0e} is allowed. Choose another --format."
        )
    changed = sum(
        int((found.argmax(axis=1) != expected.argmax(axis=1)).sum()) for found in (batch, single)
    )
    if changed:
        raise RunError(
            f"The exported model predicts another class than Keras for {changed} of "
            f"{2 * len(images)} images. Choose another --format."
        )
    return difference


def fixture_images(size: int) -> np.ndarray:
    """Returns 16 images of random pixels and 16 synthetic faces, always the same ones.

    Returns:
        Shape `(32, size, size, 3)`, float32, 0..255.
    """
    rng = np.random.default_rng(0)
    noise = rng.uniform(0, 255, (16, size, size, 3))
    faces = [draw_face(expression, rng, size) for expression in 2 * EXPRESSIONS]
    return np.concatenate([noise, faces]).astype("float32")


def _in_float32(model: keras.Model) -> keras.Model:
    """Returns the model, or a copy in float32 if a layer uses another precision."""
    policies = {layer.compute_dtype for layer in model._flatten_layers()}
    return model if policies <= {"float32"} else in_precision(model, "float32")


def _describe(
    ensemble: MultiBranchModel,
    format: Format,
    source: Mapping[str, str],
    faces: FaceConfig | None,
) -> dict[str, Any]:
    """Returns `model.json` without the checksums; docs/export.md describes it."""
    size = ensemble.image_size
    return {
        "version": CARD_VERSION,
        "format": format,
        "classes": list(ensemble.classes),
        "image_size": size,
        "input": {
            "name": "image",
            "shape": [None, size, size, 3],
            "layout": "NHWC",
            "dtype": "float32",
            "colours": "RGB",
            "range": [0, 255],
        },
        "output": {
            "name": "probabilities",
            "shape": [None, len(ensemble.classes)],
            "dtype": "float32",
            "temperature": ensemble.temperature,
        },
        "faces": faces.model_dump(mode="json") if faces else None,
        "source": dict(source),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": package_versions(
            *("multibranch-ensemble", "keras", keras.backend.backend(), "tensorflow", "numpy"),
            *RUNTIMES[format].converters,
        ),
    }


def _write(part: Path, folder: Path, write: Writer, card: dict[str, Any]) -> int:
    """Writes all files of an export into `part` and returns the size of the model, in bytes."""
    part.mkdir()
    try:
        write(part)
    except Exception as error:  # converters write in C++ and have errors of their own
        raise _unwritable(folder, error) from error
    files = sorted(path for path in part.rglob("*") if path.is_file())
    card["files"] = {path.relative_to(part).as_posix(): file_checksum(path) for path in files}
    text = json.dumps(card, indent=2, ensure_ascii=False) + "\n"
    (part / CARD).write_text(text, encoding="utf-8")
    return sum(path.stat().st_size for path in files)


def _check_replaceable(folder: Path) -> None:
    if not folder.exists() or (folder / CARD).is_file():
        return
    if not folder.is_dir() or any(folder.iterdir()):
        raise RunError(f"{folder} holds something other than an export. Choose another --output.")


def _unwritable(folder: Path, error: Exception) -> RunError:
    full = os.strerror(errno.ENOSPC)  # TensorFlow hides it in a long message
    reason = full if full in str(error) else getattr(error, "strerror", None) or reason_of(error)
    return RunError(
        f"{folder} cannot be written ({reason}). Free some space or choose another --output."
    )
