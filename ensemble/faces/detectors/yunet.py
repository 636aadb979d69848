"""YuNet, a small neural face detector that also finds the eyes.

Wu, Peng and Yu, YuNet: A Tiny Millisecond-level Face Detector, Machine
Intelligence Research 20, 2023. The model is from OpenCV Zoo (MIT licence).
"""

from pathlib import Path

import numpy as np

from configs.errors import WeightsError
from ensemble.faces.downloads import Download, find_download
from ensemble.faces.opencv import PerThread, load_opencv
from ensemble.faces.registry import Box, DetectorSpec, Face, register_detector

MODEL = Download(
    name="face_detection_yunet_2026may.onnx",
    url="https://media.githubusercontent.com/media/opencv/opencv_zoo/"
    "47534e27c9851bb1128ccc0102f1145e27f23f98/models/face_detection_yunet/"
    "face_detection_yunet_2026may.onnx",
    sha256="ebafce4e3c118d6554634be5c27ab333b4c047a9a8c3faf1d7cf93101c22f0f0",
)
THRESHOLD = 0.8  # benchmarks/faces.py: all faces of whole photos, and no face of an animal

_OVERLAP = 0.3  # of two boxes that are one face
_MAX_CANDIDATES = 5000


class YuNet:
    """The detector, with one network per thread, as networks keep state.

    Args:
        model: The ONNX file.
        threshold: Lowest score, 0..1.

    Raises:
        WeightsError: If OpenCV cannot read the file.
    """

    def __init__(self, model: Path, threshold: float) -> None:
        cv2 = load_opencv("Face detector 'yunet' needs")
        settings = ((320, 320), threshold, _OVERLAP, _MAX_CANDIDATES)
        try:
            self._network = PerThread(lambda: cv2.FaceDetectorYN.create(str(model), "", *settings))
        except (cv2.error, SystemError) as error:
            raise WeightsError(
                f"OpenCV {cv2.__version__} cannot read {model} as YuNet. "
                f"Give {MODEL.name} with --face-model, or leave that flag out."
            ) from error

    def __call__(self, image: np.ndarray) -> list[Face]:
        """Returns the faces in an image."""
        network = self._network.value
        network.setInputSize((image.shape[1], image.shape[0]))
        _, rows = network.detect(np.ascontiguousarray(image[:, :, ::-1]))
        return [] if rows is None else [_read_face(row.tolist()) for row in rows]


def _read_face(row: list[float]) -> Face:
    """Reads box, five points (eyes, nose, corners of the mouth), and score."""
    eyes = sorted([(row[4], row[5]), (row[6], row[7])])
    return Face(Box(*row[:4]), row[14], (eyes[0], eyes[1]))


def build_yunet(model: Path | None, threshold: float | None) -> YuNet:
    """Builds the detector; raises a UserError without OpenCV or a model."""
    load_opencv("Face detector 'yunet' needs")
    return YuNet(find_download(MODEL, model), THRESHOLD if threshold is None else threshold)


register_detector(
    DetectorSpec(
        name="yunet",
        summary="a neural network of 0.2 MB, downloaded once; score 0..1",
        build=build_yunet,
        reference="Wu et al., YuNet, Machine Intelligence Research 20, 2023",
        threshold=THRESHOLD,
    )
)
