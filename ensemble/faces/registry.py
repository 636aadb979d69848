"""Face detectors and their registry."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from configs.registry import Registry

Point = tuple[float, float]  # x to the right, y downwards, in pixels


class Box(NamedTuple):
    """A rectangle in an image, in pixels from its upper left corner."""

    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True)
class Face:
    """A face that a detector has found.

    Args:
        box: About from brow to chin.
        score: Confidence, on the detector's own scale.
        eyes: Their centres, the one on the left of the image first; None: unknown.
    """

    box: Box
    score: float
    eyes: tuple[Point, Point] | None = None


class Detector(Protocol):
    """Finds faces. Safe to call from several threads."""

    def __call__(self, image: np.ndarray) -> list[Face]:
        """Returns the faces in an image of shape `(height, width, 3)`, uint8, RGB."""
        ...


@dataclass(frozen=True)
class DetectorSpec:
    """A way to find faces.

    Args:
        name: As in `--faces`.
        summary: One line of description.
        build: From a model file and the lowest score of a face (None: the detector's own)
            to the detector; None where the whole image is the face. Raises a UserError if
            something is missing.
        reference: Paper or address.
        threshold: The detector's own lowest score of a face; None: it has none.
    """

    name: str
    summary: str
    build: Callable[[Path | None, float | None], Detector | None]
    reference: str = ""
    threshold: float | None = None


DETECTORS: Registry[DetectorSpec] = Registry("face detector", package="ensemble.faces.detectors")


def register_detector(spec: DetectorSpec) -> DetectorSpec:
    """Registers a face detector, so that its name works in `--faces` and everywhere else."""
    return DETECTORS.register(spec)
