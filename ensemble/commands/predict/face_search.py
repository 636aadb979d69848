"""Which faces of a photo are looked at in prediction, and which photos are faces already."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from configs.errors import UserError
from configs.schema import FaceConfig
from ensemble.faces.crops import (
    AUTO,
    FaceResult,
    NoFace,
    Several,
    build_detector,
    choose_detector,
    crop_faces,
)
from ensemble.faces.registry import Box, Detector, Face

log = logging.getLogger(__name__)

_NO_FACE = "no face is found, so the whole image is taken"
_CROP = 0.5  # of the longer side: a face this long shows that the image is a crop of it already
_CROP_SIDE = 256  # pixels; an image no longer, and no slimmer than 1 to 2, may be a face crop
_CROP_ASPECT = 2


@dataclass(frozen=True)
class FaceSearch:
    """How the faces of a photo are found. Safe to call from several threads.

    Args:
        detector: Finds faces; None takes each image as one.
        margin: As in `crop_faces`.
        align: As in `crop_faces`.
        no_face: What becomes of an image without a face: "skip" or "whole".
        several: Which faces are taken.
        accepts_crops: Whether a face crop is taken whole, as a model that was trained
            on crops has seen its images. An image is one if a single face fills it, or
            if it has no face, at most 256 pixels on its longer side, and at least half
            of those on its shorter one.
        name: The detector's, "none" without one.
    """

    detector: Detector | None = None
    margin: float = 0.1
    align: bool = False
    no_face: NoFace = "skip"
    several: Several = "all"
    accepts_crops: bool = False
    name: str = "none"

    def find(self, source: bytes | np.ndarray) -> FaceResult:
        """Returns the faces of an image; see `crop_faces`, which does it.

        An image that is taken whole although no face was found in it has that as its reason.
        Without a detector every image is whole, and is not even decoded.
        """
        if self.detector is None:
            return FaceResult("whole")
        photos = _Photos(self.detector) if self.accepts_crops else None
        result = crop_faces(
            source,
            photos or self.detector,
            margin=self.margin,
            align=self.align,
            no_face="whole" if self.accepts_crops else self.no_face,
            several=self.several,
        )
        if result.status != "whole" or (photos and photos.seen):
            return result
        if self.accepts_crops and not _may_be_crop(result.crops[0].box):
            return FaceResult("no_face", reason="no face is found; --faces none takes images whole")
        return replace(result, reason=_NO_FACE)


def choose_search(
    name: str = AUTO,
    trained: FaceConfig | None = None,
    *,
    model: Path | None = None,
    threshold: float | None = None,
    several: Several = "all",
) -> FaceSearch:
    """Returns the search that fits how a model was trained.

    With "auto", a model that was trained on faces out of photos gets the same
    search. One that was trained on images as they are gets the best detector that
    is available, see `choose_detector`, and takes face crops whole. Any other name
    is that detector, and an image without a face has no answer.

    Args:
        name: "auto" or a registered detector.
        trained: The faces section of the run's settings; None: not known.
        model: The detector's file; None: its own.
        threshold: Least score of a face; None: the detector's own.
        several: Which faces of a photo are taken.

    Raises:
        UserError: If the detector cannot be had; with "auto" only if the model was
            trained with it.
    """
    trained = trained or FaceConfig()
    if name != AUTO:
        detector = build_detector(name, model, threshold)
        return FaceSearch(detector, trained.margin, trained.align, "skip", several, name=name)
    like_training = build_detector(
        trained.detector, model or trained.model, _either(threshold, trained.threshold)
    )
    if like_training is None:
        return _search_untrained(model, threshold, several)
    no_face: NoFace = "whole" if trained.no_face == "whole" else "skip"
    return FaceSearch(
        like_training, trained.margin, trained.align, no_face, several, name=trained.detector
    )


def _search_untrained(model: Path | None, threshold: float | None, several: Several) -> FaceSearch:
    try:
        name, detector = choose_detector(AUTO, model, threshold)
    except UserError as error:
        if model is not None or threshold is not None:
            raise
        log.warning("No faces are searched, each image is taken whole. %s", error)
        return FaceSearch(several=several)
    return FaceSearch(detector, several=several, accepts_crops=True, name=name)


def _may_be_crop(image: Box) -> bool:
    longer, shorter = max(image.width, image.height), min(image.width, image.height)
    return longer <= min(_CROP_SIDE, _CROP_ASPECT * shorter)


def _either(first: float | None, second: float | None) -> float | None:
    return second if first is None else first


class _Photos:
    """A detector, for one image, that finds nothing where one face fills the image.

    Attributes:
        seen: How many faces the image has.
    """

    def __init__(self, detector: Detector) -> None:
        self._detector = detector
        self.seen = 0

    def __call__(self, image: np.ndarray) -> list[Face]:
        faces = self._detector(image)
        self.seen = len(faces)
        longest = max((max(face.box.width, face.box.height) for face in faces), default=0.0)
        return [] if longest >= _CROP * max(image.shape[:2]) else faces
