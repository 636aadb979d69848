"""Cascade of Haar features that comes with OpenCV 4, for upright faces from the front.

Viola and Jones, Rapid Object Detection using a Boosted Cascade of Simple Features, CVPR 2001.
"""

from pathlib import Path

import numpy as np

from configs.errors import ConfigError, WeightsError
from configs.files import expand_home
from ensemble.faces.opencv import PerThread, load_opencv
from ensemble.faces.registry import Box, DetectorSpec, Face, register_detector

CASCADE = "haarcascade_frontalface_alt.xml"
THRESHOLD = 3  # agreeing neighbours; benchmarks/faces.py

_SCALE_FACTOR = 1.1  # from one size of faces to the next
_MIN_SIZE = (24, 24)  # pixels


class Haar:
    """The detector, with one cascade per thread, as cascades keep state.

    Args:
        path: The cascade's XML file.
        threshold: Lowest number of neighbouring windows that agree on a face.

    Raises:
        WeightsError: If the file is not a cascade.
    """

    def __init__(self, path: Path, threshold: int) -> None:
        self._cv2 = load_opencv("Face detector 'haar' needs")
        self._threshold = threshold
        try:
            self._cascade = PerThread(lambda: self._cv2.CascadeClassifier(str(path)))
            empty = self._cascade.value.empty()
        except (self._cv2.error, SystemError):
            empty = True
        if empty:
            raise WeightsError(f"{path} is not a cascade. Leave out --face-model to use {CASCADE}.")

    def __call__(self, image: np.ndarray) -> list[Face]:
        """Returns the faces in an image; their score is the number of windows that agree."""
        grey = self._cv2.equalizeHist(self._cv2.cvtColor(image, self._cv2.COLOR_RGB2GRAY))
        boxes, counts = self._cascade.value.detectMultiScale2(
            grey, scaleFactor=_SCALE_FACTOR, minNeighbors=self._threshold, minSize=_MIN_SIZE
        )
        return [
            Face(Box(*map(float, box)), float(count))
            for box, count in zip(boxes, np.ravel(counts), strict=True)
        ]


def build_haar(model: Path | None, threshold: float | None) -> Haar:
    """Builds the detector; raises a UserError without OpenCV 4 or a valid cascade."""
    cv2 = load_opencv("Face detector 'haar' needs")
    if not hasattr(cv2, "CascadeClassifier"):
        raise ConfigError(
            f"Face detector 'haar' needs the cascades of OpenCV 4, which OpenCV {cv2.__version__} "
            "has no more. Use --faces yunet, or `pip install 'opencv-python-headless<5'`."
        )
    path = Path(cv2.data.haarcascades) / CASCADE if model is None else expand_home(model)
    return Haar(path, THRESHOLD if threshold is None else round(threshold))


register_detector(
    DetectorSpec(
        name="haar",
        summary="upright faces from the front; needs no download, but OpenCV 4; score 1, 2, ...",
        build=build_haar,
        reference="Viola and Jones, CVPR 2001",
        threshold=THRESHOLD,
    )
)
