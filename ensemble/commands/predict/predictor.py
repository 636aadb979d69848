"""From a photo to an answer: faces found, cut out as in training, and classified in batches."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from pydantic import ValidationError

from configs.errors import ConfigError, RunError
from configs.schema import FaceConfig
from ensemble.commands.predict.face_search import AUTO, FaceSearch, choose_search
from ensemble.data.decoding import ImageError, decode
from ensemble.data.reading import map_ahead
from ensemble.faces.crops import Several
from ensemble.faces.registry import Box
from ensemble.model.runtimes import CARD, ExportedModel, is_export, load_exported
from ensemble.runs.run import Run

if TYPE_CHECKING:
    from ensemble.commands.predict.explanation import Explainer, Explanation

Status = Literal["predicted", "uncertain", "no_face", "unreadable"]
Source = Path | bytes | np.ndarray | ImageError  # the last: why there is no image

_BATCH = 32  # faces at a time


class Answerer(Protocol):
    """What classifies faces: a `MultiBranchModel`, or an `ExportedModel` without Keras."""

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
    """The answer to one face, or why there is none.

    Args:
        name: Of the photo.
        status: "predicted"; "uncertain": the most probable class is below the
            confidence asked for; "no_face" and "unreadable": there is no answer.
        label: The most probable class; None unless the status is "predicted".
        confidence: The probability of the most probable class, 0..1.
        probabilities: Class name to probability, in the order of the model file.
        box: Of the face, in pixels of the upright photo; None: the whole photo.
        score: How sure the detector is of the face, on its own scale.
        reason: Why there is no answer, or why the whole photo was taken.
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
        """The answer in a few words, such as "happy 93 %" or "uncertain (happy 41 %)"."""
        if not self.probabilities:
            return self.status.replace("_", " ")
        best, share = max(self.probabilities.items(), key=lambda item: item[1])
        text = f"{best} {share:.0%}".replace("%", " %")
        return text if self.status == "predicted" else f"uncertain ({text})"


@dataclass(frozen=True, eq=False)
class Faces:
    """What a model is going to look at in one photo.

    Args:
        name: Of the photo.
        source: The photo.
        crops: Shape `(faces, size, size, 3)`, uint8, RGB, the largest face first.
        boxes: One for each crop; None: the whole photo.
        scores: Of the detector; None: the whole photo.
        missing: Why there is no crop: "no_face" or "unreadable".
        reason: In a few words.
    """

    name: str
    source: Source
    crops: np.ndarray
    boxes: tuple[Box | None, ...] = ()
    scores: tuple[float | None, ...] = ()
    missing: Literal["no_face", "unreadable"] | None = None
    reason: str = ""


class Predictor:
    """Answers for photos with a trained model; the class names are those of the model file.

    Args:
        model: A run, the folder of one, a `.keras` file, the folder of an export, or a loaded
            ensemble or export.
        search: How faces are found; None: as the model was trained, see `choose_search`.
        min_confidence: Below this probability an answer is "uncertain", 0..1.

    Raises:
        RunError: If there is no model, or it is damaged.
        UserError: If the face detector cannot be had.

    Example:
        >>> predictor = Predictor("runs/faces", min_confidence=0.5)
        >>> [answer.label for answer in predictor.predict("party.jpg")]
        ['happy', 'surprise']
    """

    def __init__(
        self,
        model: Run | Answerer | Path | str,
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
        """Whether answers can be explained: the branches of an export cannot be told apart."""
        return not isinstance(self.model, ExportedModel)

    def predict(self, image: Source | str, *, name: str = "the image") -> list[Prediction]:
        """Answers for one photo.

        Args:
            image: A path, the bytes of a file, or pixels of shape `(height, width, 3)`,
                uint8, RGB.
            name: What the photo is called, unless it is a path.

        Returns:
            One answer for each face, the largest first; where there is none, one
            whose status says why. A photo that cannot be read ends nothing.
        """
        source = Path(image) if isinstance(image, str) else image
        called = str(source) if isinstance(source, Path) else name
        return next(self.predict_all([(called, source)]))[1]

    def predict_all(
        self, photos: Iterable[tuple[str, Source]]
    ) -> Iterator[tuple[Faces, list[Prediction]]]:
        """Answers for many photos, in their order; they are decoded ahead of the model.

        Memory does not grow with the number of photos.

        Args:
            photos: Names and what `predict` takes.

        Yields:
            What was looked at in a photo, and its answers.
        """
        waiting: list[Faces] = []
        for faces in map_ahead(lambda photo: self.look(*photo), photos, each=1):
            waiting.append(faces)
            if sum(max(1, len(photo.crops)) for photo in waiting) >= _BATCH:
                yield from self._answer_all(waiting)
                waiting = []
        yield from self._answer_all(waiting)

    def look(self, name: str, source: Source) -> Faces:
        """Reads a photo and cuts its faces out. Safe to call from several threads."""
        size = self.model.image_size
        try:
            data = _read(source)
            result = self.search.find(data)
            if result.status == "whole":  # decoded as training does, so that no pixel differs
                crops = decode(data, size)[None]
                return Faces(name, source, crops, (None,), (None,), None, result.reason)
            cut = [decode(crop.pixels, size) for crop in result.crops]
        except ImageError as error:
            return self._miss(name, source, "unreadable", str(error))
        if result.status != "found":
            return self._miss(name, source, result.status, result.reason)
        boxes, scores = zip(*((crop.box, crop.score) for crop in result.crops), strict=True)
        return Faces(name, source, np.stack(cut), boxes, scores)

    def classify(self, crops: np.ndarray) -> np.ndarray:
        """Returns probabilities of shape `(faces, num_classes)`, float32.

        Args:
            crops: Shape `(faces, size, size, 3)`, uint8, RGB; at least one.
        """
        images = crops.astype(np.float32)
        answers = [
            self.model(images[start : start + _BATCH]) for start in range(0, len(images), _BATCH)
        ]
        return np.concatenate(answers)

    def answer(self, faces: Faces, probabilities: np.ndarray) -> list[Prediction]:
        """Turns the probabilities of a photo's faces into answers."""
        if faces.missing:
            return [Prediction(faces.name, faces.missing, reason=faces.reason)]
        return [
            self._judge(faces.name, row, box, score, faces.reason)
            for row, box, score in zip(probabilities, faces.boxes, faces.scores, strict=True)
        ]

    def explain(self, crop: np.ndarray) -> "Explanation":
        """Returns which parts of a face decided; see `Explainer.explain`.

        Args:
            crop: Shape `(size, size, 3)`, uint8, RGB, one of `Faces.crops`.

        Raises:
            ConfigError: If the model is an export, whose branches cannot be told apart.
        """
        return self._explainer.explain(crop)

    @cached_property
    def _explainer(self) -> "Explainer":
        from ensemble.commands.predict.explanation import Explainer
        from ensemble.model.composition import MultiBranchModel

        if not isinstance(self.model, MultiBranchModel):
            raise ConfigError(
                "An exported model cannot be explained, as its branches cannot be told apart. "
                "Name the run that it was made of."
            )
        return Explainer(self.model)

    def _answer_all(self, photos: list[Faces]) -> Iterator[tuple[Faces, list[Prediction]]]:
        crops = [faces.crops for faces in photos if len(faces.crops)]
        rows = self.classify(np.concatenate(crops)) if crops else np.zeros((0, 0))
        first = 0
        for faces in photos:
            last = first + len(faces.crops)
            yield faces, self.answer(faces, rows[first:last])
            first = last

    def _miss(
        self, name: str, source: Source, status: Literal["no_face", "unreadable"], reason: str
    ) -> Faces:
        size = self.model.image_size
        none = np.zeros((0, size, size, 3), np.uint8)
        return Faces(name, source, none, missing=status, reason=reason)

    def _judge(
        self, name: str, row: np.ndarray, box: Box | None, score: float | None, reason: str
    ) -> Prediction:
        best = int(row.argmax())
        confidence = float(row[best])
        certain = confidence >= self.min_confidence
        return Prediction(
            name,
            "predicted" if certain else "uncertain",
            self.classes[best] if certain else None,
            confidence,
            dict(zip(self.classes, row.tolist(), strict=True)),
            box,
            score,
            reason,
        )


def _read(source: Source) -> bytes | np.ndarray:
    if isinstance(source, ImageError):
        raise source
    if not isinstance(source, Path):
        return source
    try:
        return source.read_bytes()
    except OSError as error:
        raise ImageError(error.strerror or str(error)) from error


def make_predictor(
    model: Run | Path,
    *,
    faces: str = AUTO,
    face_model: Path | None = None,
    face_threshold: float | None = None,
    several: Several = "all",
    min_confidence: float = 0.0,
) -> Predictor:
    """Makes a predictor with what is known of its search for faces.

    Args:
        model: A run, a `.keras` file, or the folder of an export.
        faces: As in `choose_search`, like the three that follow.
        face_model: The detector's file.
        face_threshold: Least score of a face.
        several: Which faces of a photo are taken.
        min_confidence: As in `Predictor`.

    Raises:
        UserError: As `Predictor`.
    """
    answerer, trained = _load(model)
    search = choose_search(
        faces, trained, model=face_model, threshold=face_threshold, several=several
    )
    return Predictor(answerer, search=search, min_confidence=min_confidence)


def _load(model: Run | Answerer | Path | str) -> tuple[Answerer, FaceConfig | None]:
    """Returns what answers, and how faces were found for its training where that is known."""
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
    """Reads how faces were found from the description of a model.

    Raises:
        RunError: If it is damaged.
    """
    faces = protocol.get("faces")
    try:
        return None if faces is None else FaceConfig.model_validate(faces)
    except ValidationError as error:
        raise RunError(f"{path} has no valid `faces`. Save or export the model again.") from error
