"""No detection: right for images that are tight face crops already."""

from pathlib import Path

from ensemble.faces.registry import DetectorSpec, register_detector


def take_whole_image(model: Path | None, threshold: float | None) -> None:
    """Returns no detector: the whole image is the face."""


register_detector(
    DetectorSpec(name="none", summary="the whole image is the face", build=take_whole_image)
)
