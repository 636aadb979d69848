"""Image stores that return the face in each image."""

from dataclasses import replace

import numpy as np

from configs.schema import DataConfig, FaceConfig
from ensemble.data.decoding import ImageError
from ensemble.data.loading import Dataset, load_dataset, locate
from ensemble.data.registry import ImageStore
from ensemble.faces.crops import build_detector, crop_faces
from ensemble.faces.registry import Detector, Face


class FaceStore:
    """Reads the largest face of each image; each is searched once. Safe to use from threads."""

    def __init__(self, images: ImageStore, detector: Detector, settings: FaceConfig) -> None:
        self._images = images
        self._detector = detector
        self._settings = settings
        self._faces: dict[str, list[Face]] = {}

    def read(self, name: str) -> np.ndarray:
        """Returns pixels of shape `(side, side, 3)`, uint8, RGB.

        Raises:
            OSError: If the image cannot be read.
            ImageError: If it is corrupt, or if it has no face and such are skipped.
            DataError: If it has no face and that is an error.
        """

        def detect(image: np.ndarray) -> list[Face]:
            if name not in self._faces:
                self._faces[name] = self._detector(image)
            return self._faces[name]

        result = crop_faces(self._images.read(name), detect, self._settings, name)
        if not result.crops:
            raise ImageError(result.reason)
        return result.crops[0].pixels


def face_images(images: ImageStore, settings: FaceConfig) -> ImageStore:
    """Returns a store of the faces in images; the images themselves without a detector.

    Raises:
        UserError: If the detector is not available.
    """
    detector = build_detector(settings.detector, settings.model, settings.threshold)
    return images if detector is None else FaceStore(images, detector, settings)


def read_dataset(config: DataConfig, seed: int) -> Dataset:
    """Loads the configured dataset; where a face detector is set, an image is the face in it."""
    dataset = load_dataset(
        locate(config),
        source=config.source,
        classes=config.classes,
        merge=config.merge,
        validation_fraction=config.validation_fraction,
        seed=seed,
    )
    images = face_images(dataset.train.images, config.faces)
    return replace(
        dataset,
        train=replace(dataset.train, images=images),
        validation=replace(dataset.validation, images=images),
        test=replace(dataset.test, images=images) if dataset.test else None,
    )
