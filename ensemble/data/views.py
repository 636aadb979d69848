"""Augmented views of an image: a fixed number of them, so that their features can be kept.

View 0 is the image itself. Each further view is decided by the image's content,
the view's number and the seed alone: it is the same in every run, in every
order, beside whatever other images.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import astuple, dataclass

import numpy as np
from keras import ops

from configs.schema import DataConfig


@dataclass(frozen=True)
class View:
    """One way to look at every image.

    Args:
        number: 0 is the image itself, whatever the other arguments are.
        rotation: Largest angle to either side, in degrees.
        horizontal_flip: Whether half of the images, on average, are mirrored.
        seed: Random seed.
    """

    number: int = 0
    rotation: float = 0.0
    horizontal_flip: bool = False
    seed: int = 0

    @property
    def name(self) -> str:
        """A name that no other view has, fit for a folder."""
        if self.number == 0:
            return "view-0"
        digest = hashlib.sha256(repr(astuple(self)).encode()).hexdigest()
        return f"view-{self.number}-{digest[:16]}"

    def of(self, images: np.ndarray, digests: Sequence[bytes]) -> np.ndarray:
        """Returns the view of each image; arguments and result as in `augmented_view`."""
        return augmented_view(
            images,
            digests,
            self.number,
            rotation=self.rotation,
            horizontal_flip=self.horizontal_flip,
            seed=self.seed,
        )


def augmented_view(
    images: np.ndarray,
    digests: Sequence[bytes],
    view: int,
    *,
    rotation: float,
    horizontal_flip: bool,
    seed: int,
) -> np.ndarray:
    """Returns one view of each image: rotated about the centre, perhaps mirrored.

    Args:
        images: Shape `(batch, h, w, 3)`, values 0..255.
        digests: What identifies each image, such as the SHA-256 of its bytes.
        view: Number of the view; 0 gives the images themselves.
        rotation: Largest angle to either side, in degrees.
        horizontal_flip: Whether every other view, on average, is mirrored.
        seed: Random seed.

    Returns:
        Shape `(batch, h, w, 3)`, values 0..255; view 0 in the type of `images`, others
        float32. What a rotation uncovers repeats the nearest pixel of the border.
    """
    if view == 0:
        return images
    transforms = [
        _transform(digest, view, images.shape[1:3], rotation, horizontal_flip, seed)
        for digest in digests
    ]
    moved = ops.image.affine_transform(
        images.astype("float32"),
        np.stack(transforms),
        interpolation="bilinear",
        fill_mode="nearest",
        data_format="channels_last",
    )
    return np.clip(ops.convert_to_numpy(moved), 0, 255)


def _transform(
    digest: bytes,
    view: int,
    size: tuple[int, ...],
    rotation: float,
    horizontal_flip: bool,
    seed: int,
) -> np.ndarray:
    """Returns the eight numbers that map a pixel of the view to one of the image."""
    generator = np.random.default_rng([seed, view, int.from_bytes(digest[:8], "big")])
    angle = np.deg2rad(generator.uniform(-rotation, rotation))
    mirror = -1.0 if horizontal_flip and generator.random() < 0.5 else 1.0
    centre_y, centre_x = ((side - 1) / 2 for side in size)
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array(
        [
            cos * mirror,
            -sin,
            centre_x - cos * mirror * centre_x + sin * centre_y,
            sin * mirror,
            cos,
            centre_y - sin * mirror * centre_x - cos * centre_y,
            0,
            0,
        ],
        np.float32,
    )


def training_views(config: DataConfig, seed: int) -> list[View]:
    """Returns the views of a training image, the first of which is the image itself."""
    augment = config.augment
    return [
        View(number, augment.rotation, augment.horizontal_flip, seed)
        for number in range(config.views)
    ]
