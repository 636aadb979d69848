"""From an image to its faces: the one function that preparing, training and predicting share."""

import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from configs.errors import DataError, UserError
from ensemble.data.decoding import ImageError, decode_whole
from ensemble.faces.registry import DETECTORS, Box, Detector, Face

log = logging.getLogger(__name__)

AUTO = "auto"
_CANDIDATES = ("yunet", "haar")  # the better one first; the other needs no download

Status = Literal["found", "whole", "no_face", "unreadable"]
NoFace = Literal["skip", "whole", "error"]
Several = Literal["largest", "all"]

# What detectors look at, in pixels: a large photo shrunk, as time grows with the
# pixels and smaller faces are of no use; a small one enlarged, in which YuNet then
# finds more faces (benchmarks/faces.py). A strip thinner than the coarsest grid of
# a network has no face: on less, answers were seen to depend on chance.
_LONGEST_SIDE, _SHORTEST_SIDE, _THINNEST = 1024, 96, 32

_EYES_APART = 0.2  # of the box's width; nearer ones are of a profile, and tell no angle


@dataclass(frozen=True, eq=False)
class FaceCrop:
    """A face cut from an image.

    Args:
        pixels: Shape `(side, side, 3)`, uint8, RGB; the whole image may be oblong.
        box: The detector's box, within the upright image.
        score: How sure the detector is; 1 for a whole image.
    """

    pixels: np.ndarray
    box: Box
    score: float = 1.0


@dataclass(frozen=True, eq=False)
class FaceResult:
    """What became of an image.

    Args:
        status: "found"; "whole": the image itself is the only crop; "no_face" and
            "unreadable": there is no crop.
        crops: Faces, the largest first.
        found: How many faces there are, those that are not wanted included.
        reason: Why there is no crop, in a few words.
    """

    status: Status
    crops: tuple[FaceCrop, ...] = ()
    found: int = 0
    reason: str = ""


def build_detector(
    name: str, model: Path | None = None, threshold: float | None = None
) -> Detector | None:
    """Builds a registered face detector.

    Args:
        name: As in `--faces`.
        model: Its file; None: its own.
        threshold: Least score of a face, on the detector's scale; None: its own.

    Returns:
        The detector; None where the whole image is the face.

    Raises:
        ConfigError: If there is none of that name, or OpenCV is missing.
        WeightsError: If its model cannot be had.
    """
    return DETECTORS.get(name).build(model, threshold)


def choose_detector(
    name: str, model: Path | None = None, threshold: float | None = None
) -> tuple[str, Detector | None]:
    """Builds a face detector, or the best one available.

    Args:
        name: A registered detector, or "auto": YuNet, or Haar with a warning where
            YuNet is not available.
        model: As in `build_detector`. With "auto" it is the model of YuNet.
        threshold: As in `build_detector`. With "auto" it is on the scale of YuNet.

    Returns:
        Name of the detector, and the detector.

    Raises:
        UserError: If it is not available. With "auto": if neither is, or if YuNet is
            not, and a model or a threshold is given for it.
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
    *,
    margin: float = 0.1,
    align: bool = False,
    no_face: NoFace = "skip",
    several: Several = "largest",
    name: str = "the image",
) -> FaceResult:
    """Finds faces and cuts a square around each.

    The square's side is the longer one of the face's box, with the margin on both
    sides. It moves, and then shrinks down to the box, to stay inside the image.
    Only where the box itself is longer than the image's shorter side, the rim is
    repeated. Safe to call from several threads.

    Args:
        source: The bytes of an image file, or pixels, as `images.decode` takes them.
        detector: Finds faces; None takes the whole image as one.
        margin: What is added on each side, as a share of the box, >= 0.
        align: Turn each face until its eyes are level, where the detector tells them.
        no_face: An image without a face has no crop ("skip"), is its own crop
            ("whole") or is an error.
        several: Which faces of an image are cut: the "largest" one or "all".
        name: What the image is called in messages.

    Returns:
        Crops in the image's own resolution. An image that cannot be read has the
        status "unreadable" and ends nothing.

    Raises:
        DataError: If there is no face and `no_face` is "error".
    """
    try:
        image = decode_whole(source)
        faces = None if detector is None else _detect(image, detector)
    except ImageError as error:
        return FaceResult("unreadable", reason=str(error))
    if faces:
        wanted = faces[:1] if several == "largest" else faces
        crops = tuple(
            FaceCrop(_cut_face(image, face, margin, align), face.box, face.score) for face in wanted
        )
        return FaceResult("found", crops, len(faces))
    if faces is None or no_face == "whole":
        height, width = image.shape[:2]
        return FaceResult("whole", (FaceCrop(image, Box(0, 0, width, height)),))
    if no_face == "error":
        raise DataError(
            f"There is no face in {name}. Take it out, or let images without a face be left out "
            "or taken whole."
        )
    return FaceResult("no_face", reason="no face is found")


def _detect(image: np.ndarray, detector: Detector) -> list[Face]:
    """Returns the faces, the largest first, their boxes within the image."""
    height, width = image.shape[:2]
    scale = _LONGEST_SIDE / max(height, width)
    scale = min(scale, max(1.0, _SHORTEST_SIDE / min(height, width)))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    if min(size) < _THINNEST:
        return []
    seen = Image.fromarray(image)
    if scale != 1:
        seen = seen.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
    try:
        found = detector(np.asarray(seen))
    except Exception as error:  # a detector meets every size and content there is
        raise ImageError(f"the face detector fails ({error})") from error
    across, down = width / size[0], height / size[1]
    faces = [_scale(face, across, down, width, height) for face in found]
    return sorted(
        (face for face in faces if face.box.width >= 1 and face.box.height >= 1),
        key=lambda face: (-face.box.width * face.box.height, face.box),
    )


def _scale(face: Face, across: float, down: float, width: int, height: int) -> Face:
    """Returns a face in the pixels of the image, its box clipped to it."""
    left = min(max(face.box.left * across, 0), width)
    top = min(max(face.box.top * down, 0), height)
    right = min(max((face.box.left + face.box.width) * across, 0), width)
    bottom = min(max((face.box.top + face.box.height) * down, 0), height)
    eyes = None
    if face.eyes is not None:
        (x1, y1), (x2, y2) = face.eyes
        eyes = ((x1 * across, y1 * down), (x2 * across, y2 * down))
    return Face(Box(left, top, right - left, bottom - top), face.score, eyes)


def _cut_face(image: np.ndarray, face: Face, margin: float, align: bool) -> np.ndarray:
    left, top, side = _square(face.box, margin, image.shape[1], image.shape[0])
    angle = _tilt(face) if align else 0.0
    if not angle:
        return _cut(image, left, top, side)
    rim = math.ceil(side * (math.sqrt(0.5) - 0.5)) + 1  # what a corner sweeps over
    around = Image.fromarray(_cut(image, left - rim, top - rim, side + 2 * rim))
    turned = np.asarray(around.rotate(angle, Image.Resampling.BILINEAR))
    return _cut(turned, rim, rim, side)


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
    """Returns where a stretch begins: about its middle, but inside where it fits."""
    if side > length:
        return (length - side) // 2
    return min(max(round(middle - side / 2), 0), length - side)


def _cut(image: np.ndarray, left: int, top: int, side: int) -> np.ndarray:
    """Returns a square of an image; what lies outside repeats the rim."""
    rows = np.clip(np.arange(top, top + side), 0, image.shape[0] - 1)
    columns = np.clip(np.arange(left, left + side), 0, image.shape[1] - 1)
    return image[rows[:, None], columns]


def _tilt(face: Face) -> float:
    """Returns by how many degrees, against the clock, a face must turn to be level."""
    if face.eyes is None:
        return 0.0
    (left, upper), (right, lower) = face.eyes
    if math.hypot(right - left, lower - upper) < _EYES_APART * face.box.width:
        return 0.0
    return math.degrees(math.atan2(lower - upper, right - left))
