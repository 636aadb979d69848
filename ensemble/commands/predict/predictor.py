"""Predictions for photos: faces are found, cut out as in training, and classified in batches."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from pydantic import ValidationError

from configs.errors import ConfigError, RunError
from configs.schema import FaceConfig
from ensemble.commands.predict.face_search import FaceSearch, choose_search
from ensemble.data.decoding import ImageError, decode
from ensemble.data.reading import map_ahead
from ensemble.faces.registry import Box
from ensemble.model.runtimes import CARD, ExportedModel, is_export, load_exported
from ensemble.runs.run import Run

if TYPE_CHECKING:
    from ensemble.commands.predict.explanation import Explainer, Explanation

Status = Literal["predicted", "uncertain", "no_face", "unreadable"]
Source = Path | bytes | np.ndarray | ImageError  # the last: why there is no image

_BATCH = 32  # faces


class Classifier(Protocol):
    """A model that classifies faces: a `MultiBranchModel`, or an `ExportedModel` without Keras."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the probabilities."""

    @property
    def image_size(self) -> int:
        """Height and width of the images, in pixels."""

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Returns probabilities of images of shape `(n, size, size, 3)`, float32, 0..255."""


@dataclass(frozen=True)
class Prediction:
    """The prediction for one face, or why there is none.

    Args:
        name: Name of the photo.
        status: "predicted"; "uncertain": the most probable class is below the
            required confidence; "no_face" and "unreadable": there is no prediction.
        label: The most probable class; None unless the status is "predicted".
        confidence: The probability of the most probable class, 0..1.
        probabilities: Class name to probability, in the order of the model file.
        box: Box of the face, in pixels of the upright photo; None: the whole photo.
        score: The detector's confidence in the face, on its own scale.
        reason: Why there is no prediction, or why the whole photo was taken.
    """

    name: str
    status: Status
    label: str | None = None
    confidence: float | None = None
    probabilities: Mapping[str, float] | None = None
    box: Box | None = None
    score: float | None = None
    reason: str = ""

    @property
    def caption(self) -> str:
        """The prediction in a few words, such as "happy 93 %" or "uncertain (happy 41 %)"."""
        if not self.probabilities:
            return self.status.replace("_", " ")
        best = max(self.probabilities, key=self.probabilities.__getitem__)
        text = f"{best} {100 * self.probabilities[best]:.0f} %"
        return text if self.status == "predicted" else f"uncertain ({text})"


@dataclass(frozen=True, eq=False)
class Faces:
    """The faces of one photo, ready for a model.

    Args:
        name: Name of the photo.
        source: The photo.
        crops: Shape `(faces, size, size, 3)`, uint8, RGB, the largest face first.
        boxes: One per crop; None: the whole photo.
        scores: The detector's, one per crop; None: the whole photo.
        missing: Why there is no crop.
        reason: The same in a few words, or why the whole photo was taken.
    """

    name: str
    source: Source
    crops: np.ndarray
    boxes: tuple[Box | None, ...] = ()
    scores: tuple[float | None, ...] = ()
    missing: Literal["no_face", "unreadable"] | None = None
    reason: str = ""


class Predictor:
    """Predictions for photos with a trained model.

    Args:
        model: A run, the folder of one, a `.keras` file, the folder of an export, or a loaded
            ensemble or export.
        search: How faces are found; None: as the model was trained, see `choose_search`.
        min_confidence: Probability below which a prediction is "uncertain", 0..1.

    Raises:
        RunError: If there is no model, or it is corrupt.
        UserError: If the face detector is not available.

    Example:
        >>> predictor = Predictor("runs/faces", min_confidence=0.5)
        >>> [prediction.label for prediction in predictor.predict("party.jpg")]
        ['happy', 'surprise']
    """

    def __init__(
        self,
        model: Run | Classifier | Path | str,
        *,
        search: FaceSearch | None = None,
        min_confidence: float = 0.0,
    ) -> None:
        self.model, trained = _load(model)
        self.search = search or choose_search(trained=trained)
        self.min_confidence = min_confidence

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the probabilities."""
        return self.model.classes

    @property
    def explains(self) -> bool:
        """Whether predictions can be explained, which needs the branches of the model."""
        return not isinstance(self.model, ExportedModel)

    def predict(self, image: Source | str, *, name: str = "the image") -> list[Prediction]:
        """Predicts one photo.

        Args:
            image: A path, the bytes of a file, or pixels of shape `(height, width, 3)`,
                uint8, RGB.
            name: Name of the photo, unless it is a path.

        Returns:
            One prediction per face, the largest first. Without a face, or if the photo is
            unreadable, the only one has that status and the reason.
        """
        source = Path(image) if isinstance(image, str) else image
        called = str(source) if isinstance(source, Path) else name
        return next(self.predict_all([(called, source)]))[1]

    def predict_all(
        self, photos: Iterable[tuple[str, Source]]
    ) -> Iterator[tuple[Faces, list[Prediction]]]:
        """Predicts many photos in their order, in memory that does not grow with their number.

        Args:
            photos: Names, and what `predict` takes.

        Yields:
            The faces of a photo, and their predictions.
        """
        waiting: list[Faces] = []
        for faces in map_ahead(lambda photo: self.look(*photo), photos, each=1):
            waiting.append(faces)
            if sum(max(1, len(photo.crops)) for photo in waiting) >= _BATCH:
                yield from self._predict_batch(waiting)
                waiting = []
        yield from self._predict_batch(waiting)

    def look(self, name: str, source: Source) -> Faces:
        """Reads a photo and cuts its faces out. Safe to call from several threads."""
        size = self.model.image_size
        nothing = np.zeros((0, size, size, 3), np.uint8)
        try:
            data = _read(source)
            result = self.search.find(data)
            if result.status == "whole":  # decoded as in training, so that no pixel differs
                crops = decode(data, size)[None]
                return Faces(name, source, crops, (None,), (None,), reason=result.reason)
            faces = [decode(crop.pixels, size) for crop in result.crops]
        except ImageError as error:
            return Faces(name, source, nothing, missing="unreadable", reason=str(error))
        if result.status != "found":
            return Faces(name, source, nothing, missing=result.status, reason=result.reason)
        boxes = tuple(crop.box for crop in result.crops)
        scores = tuple(crop.score for crop in result.crops)
        return Faces(name, source, np.stack(faces), boxes, scores)

    def classify(self, crops: np.ndarray) -> np.ndarray:
        """Returns probabilities of shape `(faces, num_classes)`, float32.

        Args:
            crops: Shape `(faces, size, size, 3)`, uint8, RGB; at least one.
        """
        images = crops.astype(np.float32)
        starts = range(0, len(images), _BATCH)
        return np.concatenate([self.model(images[start : start + _BATCH]) for start in starts])

    def answer(self, faces: Faces, probabilities: np.ndarray) -> list[Prediction]:
        """Turns the probabilities of a photo's faces into predictions."""
        if faces.missing:
            return [Prediction(faces.name, faces.missing, reason=faces.reason)]
        predictions = []
        for row, box, score in zip(probabilities, faces.boxes, faces.scores, strict=True):
            confidence = float(row.max())
            certain = confidence >= self.min_confidence
            predictions.append(
                Prediction(
                    faces.name,
                    "predicted" if certain else "uncertain",
                    self.classes[row.argmax()] if certain else None,
                    confidence,
                    dict(zip(self.classes, row.tolist(), strict=True)),
                    box,
                    score,
                    faces.reason,
                )
            )
        return predictions

    def explain(self, crop: np.ndarray) -> "Explanation":
        """Returns which parts of a face contribute to its prediction; see `Explainer.explain`.

        Args:
            crop: Shape `(size, size, 3)`, uint8, RGB, one of `Faces.crops`.

        Raises:
            ConfigError: If the model is an export, whose branches are not separate.
        """
        return self._explainer.explain(crop)

    @cached_property
    def _explainer(self) -> "Explainer":
        from ensemble.commands.predict.explanation import Explainer
        from ensemble.model.composition import MultiBranchModel

        if not isinstance(self.model, MultiBranchModel):
            raise ConfigError(
                "An exported model cannot be explained, as its branches are not separate. "
                "Name the run that it was made of."
            )
        return Explainer(self.model)

    def _predict_batch(self, photos: list[Faces]) -> Iterator[tuple[Faces, list[Prediction]]]:
        crops = [faces.crops for faces in photos if len(faces.crops)]
        rows = iter(self.classify(np.concatenate(crops)) if crops else ())
        for faces in photos:
            yield faces, self.answer(faces, np.array([next(rows) for _ in faces.crops]))


def _read(source: Source) -> bytes | np.ndarray:
    if isinstance(source, ImageError):
        raise source
    if not isinstance(source, Path):
        return source
    try:
        return source.read_bytes()
    except OSError as error:
        raise ImageError(error.strerror or str(error)) from error


def make_predictor(model: Run | Path, faces: FaceConfig, min_confidence: float) -> Predictor:
    """Makes a predictor that finds faces as wanted; see `choose_search`.

    Raises:
        UserError: As `Predictor`.
    """
    classifier, trained = _load(model)
    return Predictor(
        classifier, search=choose_search(faces, trained), min_confidence=min_confidence
    )


def _load(model: Run | Classifier | Path | str) -> tuple[Classifier, FaceConfig | None]:
    """Returns a model, and how faces were found for its training where that is known."""
    if isinstance(model, Run):
        return model.load_model(), model.config.data.faces
    if not isinstance(model, str | Path):
        return model, None
    path = Path(model)
    if is_export(path):
        exported = load_exported(path)
        return exported, _read_faces(path / CARD, exported.card)
    if path.suffix == ".keras":
        from ensemble.model.composition import MultiBranchModel
        from ensemble.model.model_file import read_protocol

        return MultiBranchModel.load(path), _read_faces(path, read_protocol(path))
    return _load(Run.open(path))


def _read_faces(path: Path, protocol: Mapping[str, Any]) -> FaceConfig | None:
    faces = protocol.get("faces")
    try:
        return None if faces is None else FaceConfig.model_validate(faces)
    except ValidationError as error:
        raise RunError(f"{path} has no valid `faces`. Save or export the model again.") from error
