"""Crops of the faces in an image, made by one function in preparing, training and prediction."""

import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from configs.errors import DataError, UserError
from configs.schema import FaceConfig
from ensemble.data.decoding import ImageError, decode_whole
from ensemble.faces.registry import DETECTORS, Box, Detector, Face

log = logging.getLogger(__name__)

AUTO = "auto"
_CANDIDATES = ("yunet", "haar")  # the better one first; the other needs no download

# Sides of the image that a detector searches, in pixels. Large photos are shrunk, as time
# grows with the pixels; small ones are enlarged, in which YuNet then finds more faces
# (benchmarks/faces.py). Results on strips thinner than a network's coarsest grid are random.
_MAX_SIDE, _MIN_SIDE, _MIN_THICKNESS = 1024, 96, 32

_MIN_EYE_DISTANCE = 0.2  # of the box's width; in profile the eyes show no angle


@dataclass(frozen=True, eq=False)
class FaceCrop:
    """A face cut from an image.

    Args:
        pixels: Shape `(side, side, 3)`, uint8, RGB; a whole image may be oblong.
        box: The detector's box, within the upright image.
        score: The detector's score; 1 for a whole image.
    """

    pixels: np.ndarray
    box: Box
    score: float = 1.0


@dataclass(frozen=True, eq=False)
class FaceResult:
    """The faces of an image.

    Args:
        status: "whole": the image itself is the only crop; "no_face" and "unreadable":
            there is no crop.
        crops: Faces, the largest first.
        found: Number of faces, including those that are not wanted.
        reason: Why there is no crop, in a few words.
    """

    status: Literal["found", "whole", "no_face", "unreadable"]
    crops: tuple[FaceCrop, ...] = ()
    found: int = 0
    reason: str = ""


def build_detector(
    name: str, model: Path | None = None, threshold: float | None = None
) -> Detector | None:
    """Builds a registered face detector; None where the whole image is the face.

    Args:
        name: As in `--faces`.
        model: Model file; None: the detector's own.
        threshold: Lowest score of a face, on the detector's scale; None: its own.

    Raises:
        UserError: If the detector, its library or its model is not available.
    """
    return DETECTORS.get(name).build(model, threshold)


def choose_detector(
    name: str, model: Path | None = None, threshold: float | None = None
) -> tuple[str, Detector | None]:
    """Builds a face detector, or the best one available, and returns its name too.

    Args:
        name: A registered detector, or "auto": YuNet, or Haar with a warning where
            YuNet is not available.
        model: As in `build_detector`; with "auto" for YuNet only.
        threshold: As in `build_detector`; with "auto" on the scale of YuNet.

    Raises:
        UserError: If it is not available. With "auto": if neither is, or if YuNet is
            not and a model or a threshold is given for it.
    """
    if name != AUTO:
        return name, build_detector(name, model, threshold)
    best, *others = _CANDIDATES
    try:
        return best, build_detector(best, model, threshold)
    except UserError as error:
        if model is not None or threshold is not None:
            raise
        reason = error
    for other in others:
        try:
            detector = build_detector(other)
        except UserError:
            continue
        log.warning(
            "Face detector: %s, which finds fewer faces and frames them less well than %s. %s",
            other,
            best,
            reason,
        )
        return other, detector
    raise reason


def crop_faces(
    source: bytes | np.ndarray,
    detector: Detector | None,
    settings: FaceConfig | None = None,
    name: str = "the image",
) -> FaceResult:
    """Finds faces and cuts a square around each, in the image's own resolution.

    The square's side is the longer one of the face's box, with the margin on both
    sides. It moves, and then shrinks down to the box, to stay inside the image.
    Only where the box itself is longer than the image's shorter side, edge pixels are
    repeated. Safe to call from several threads.

    Args:
        source: The bytes of an image file, or pixels, as `decode` takes them.
        detector: Finds faces; None takes the whole image as one.
        settings: Margin, alignment and which faces are cut; None: the defaults.
        name: The image's name in messages.

    Returns:
        The crops; an unreadable image is reported by its status.

    Raises:
        DataError: If there is no face and `settings.no_face` is "error".
    """
    settings = settings or FaceConfig()
    try:
        image = decode_whole(source)
        faces = None if detector is None else _detect(image, detector)
    except ImageError as error:
        return FaceResult("unreadable", reason=str(error))
    if faces:
        wanted = faces[:1] if settings.several == "largest" else faces
        crops = (
            FaceCrop(_cut_face(image, face, settings), face.box, face.score) for face in wanted
        )
        return FaceResult("found", tuple(crops), len(faces))
    if faces is None or settings.no_face == "whole":
        height, width = image.shape[:2]
        return FaceResult("whole", (FaceCrop(image, Box(0, 0, width, height)),))
    if settings.no_face == "error":
        raise DataError(
            f"There is no face in {name}. Take it out, or let images without a face be left out "
            "or taken whole."
        )
    return FaceResult("no_face", reason="no face is found")


def _detect(image: np.ndarray, detector: Detector) -> list[Face]:
    """Returns the faces, the largest first, their boxes within the image."""
    height, width = image.shape[:2]
    scale = _MAX_SIDE / max(height, width)
    scale = min(scale, max(1.0, _MIN_SIDE / min(height, width)))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    if min(size) < _MIN_THICKNESS:
        return []
    searched = Image.fromarray(image)
    if scale != 1:
        searched = searched.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
    try:
        found = detector(np.asarray(searched))
    except Exception as error:  # a detector meets every size and content
        raise ImageError(f"the face detector fails ({error})") from error
    ratios = np.array([width / size[0], height / size[1]])
    faces = [_scale(face, ratios, np.array([width, height])) for face in found]
    return sorted(
        (face for face in faces if min(face.box.width, face.box.height) >= 1),
        key=lambda face: (-face.box.width * face.box.height, face.box),
    )


def _scale(face: Face, ratios: np.ndarray, size: np.ndarray) -> Face:
    """Returns a face in the pixels of the image, its box clipped to it."""
    corner = np.array(face.box[:2])
    start, end = np.clip([corner * ratios, (corner + face.box[2:]) * ratios], 0, size)
    box = Box(*start.tolist(), *(end - start).tolist())
    if face.eyes is None:
        return Face(box, face.score)
    left, right = (np.array(face.eyes) * ratios).tolist()
    return Face(box, face.score, ((left[0], left[1]), (right[0], right[1])))


def _cut_face(image: np.ndarray, face: Face, settings: FaceConfig) -> np.ndarray:
    left, top, side = _square(face.box, settings.margin, image.shape[1], image.shape[0])
    angle = _tilt(face) if settings.align else 0.0
    if not angle:
        return _cut(image, left, top, side)
    border = math.ceil(side * (math.sqrt(0.5) - 0.5)) + 1  # swept over by the corners
    around = Image.fromarray(_cut(image, left - border, top - border, side + 2 * border))
    rotated = np.asarray(around.rotate(angle, Image.Resampling.BILINEAR))
    return _cut(rotated, border, border, side)


def _square(box: Box, margin: float, width: int, height: int) -> tuple[int, int, int]:
    """Returns left, top and side of the square around a box."""
    longer = max(box.width, box.height)
    side = max(1, round(max(longer, min(longer * (1 + 2 * margin), width, height))))
    return (
        _place(box.left + box.width / 2, side, width),
        _place(box.top + box.height / 2, side, height),
        side,
    )


def _place(middle: float, side: int, length: int) -> int:
    """Returns the start of a stretch around a middle, moved inside where it fits."""
    if side > length:
        return (length - side) // 2
    return min(max(round(middle - side / 2), 0), length - side)


def _cut(image: np.ndarray, left: int, top: int, side: int) -> np.ndarray:
    """Returns a square of an image; edge pixels are repeated outside."""
    rows = np.clip(np.arange(top, top + side), 0, image.shape[0] - 1)
    columns = np.clip(np.arange(left, left + side), 0, image.shape[1] - 1)
    return image[rows[:, None], columns]


def _tilt(face: Face) -> float:
    """Returns the counterclockwise rotation in degrees that levels the eyes."""
    if face.eyes is None:
        return 0.0
    (left, upper), (right, lower) = face.eyes
    if math.hypot(right - left, lower - upper) < _MIN_EYE_DISTANCE * face.box.width:
        return 0.0
    return math.degrees(math.atan2(lower - upper, right - left))
