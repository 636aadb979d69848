"""The search for faces in prediction, which also recognises images that are face crops already."""

import logging
from dataclasses import dataclass, field, replace

import numpy as np

from configs.errors import UserError
from configs.schema import FaceConfig
from ensemble.faces.crops import (
    AUTO,
    FaceResult,
    build_detector,
    choose_detector,
    crop_faces,
)
from ensemble.faces.registry import Box, Detector, Face

log = logging.getLogger(__name__)

_NO_FACE = "no face is found, so the whole image is taken"
_MIN_FACE_SHARE = 0.5  # of the longer side, from which a face shows that the image is its crop
_MAX_CROP_SIDE = 256  # pixels of a crop in which no face is found
_MAX_CROP_ASPECT = 2


@dataclass(frozen=True)
class FaceSearch:
    """How the faces of a photo are found. Safe to call from several threads.

    Args:
        detector: Finds faces; None takes each image as one.
        settings: Name of the detector, and how faces are cut.
        accepts_crops: Whether a face crop is taken whole, as a model that was trained
            on crops has seen its images. An image is one if a single face fills it, or
            if it has no face, at most 256 pixels on its longer side, and at least half
            of those on its shorter one.
    """

    detector: Detector | None = None
    settings: FaceConfig = field(default_factory=lambda: FaceConfig(several="all"))
    accepts_crops: bool = False

    def find(self, source: bytes | np.ndarray) -> FaceResult:
        """Returns the faces of an image; see `crop_faces`.

        The reason of an image that is taken whole is set if no face was found in it.
        Without a detector every image is whole, and is not even decoded.
        """
        detector = self.detector
        if detector is None:
            return FaceResult("whole")
        if not self.accepts_crops:
            result = crop_faces(source, detector, self.settings)
            return replace(result, reason=_NO_FACE) if result.status == "whole" else result
        seen: list[Face] = []

        def find_in_photo(image: np.ndarray) -> list[Face]:
            seen.extend(detector(image))
            longest = max((max(face.box.width, face.box.height) for face in seen), default=0.0)
            return [] if longest >= _MIN_FACE_SHARE * max(image.shape[:2]) else seen

        settings = self.settings.model_copy(update={"no_face": "whole"})
        result = crop_faces(source, find_in_photo, settings)
        if result.status != "whole" or seen:
            return result
        if _may_be_crop(result.crops[0].box):
            return replace(result, reason=_NO_FACE)
        return FaceResult("no_face", reason="no face is found; --faces none takes images whole")


def choose_search(
    wanted: FaceConfig | None = None, trained: FaceConfig | None = None
) -> FaceSearch:
    """Returns the search that fits how a model was trained.

    With "auto", a model that was trained on faces out of photos gets the same search. One
    that was trained on images as they are gets the best available detector, see
    `choose_detector`, and takes face crops whole. Any other name is that detector, and an
    image without a face has no prediction.

    Args:
        wanted: Detector ("auto" or a name), its model and threshold, and which faces of a
            photo are taken; None: "auto" and all faces.
        trained: The faces section of the run's settings; None: unknown.

    Raises:
        UserError: If the detector is not available; with "auto" only if the model was
            trained with it, or if a model or a threshold is given for it.
    """
    wanted = wanted or FaceConfig(detector=AUTO, several="all")
    trained = trained or FaceConfig()
    several = wanted.several
    if wanted.detector != AUTO:
        detector = build_detector(wanted.detector, wanted.model, wanted.threshold)
        update = {"detector": wanted.detector, "no_face": "skip", "several": several}
        return FaceSearch(detector, trained.model_copy(update=update))
    threshold = trained.threshold if wanted.threshold is None else wanted.threshold
    detector = build_detector(trained.detector, wanted.model or trained.model, threshold)
    if detector is not None:
        no_face = "whole" if trained.no_face == "whole" else "skip"
        update = {"no_face": no_face, "several": several}
        return FaceSearch(detector, trained.model_copy(update=update))
    try:
        name, detector = choose_detector(AUTO, wanted.model, wanted.threshold)
    except UserError as error:
        if wanted.model is not None or wanted.threshold is not None:
            raise
        log.warning("No faces are searched, each image is taken whole. %s", error)
        return FaceSearch()
    return FaceSearch(detector, FaceConfig(detector=name, several=several), accepts_crops=True)


def _may_be_crop(image: Box) -> bool:
    longer, shorter = max(image.width, image.height), min(image.width, image.height)
    return longer <= min(_MAX_CROP_SIDE, _MAX_CROP_ASPECT * shorter)
