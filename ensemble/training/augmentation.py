"""Augmentation of training images that is drawn anew in each epoch, for fine-tuning."""

import threading
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from ensemble.training.distribution import local_cpu
from ensemble.training.mixing import mix

_CHUNK = 256  # images at a time: memory stays small, however long a block is
_GREY = 115.0  # ImageNet's mean, of all channels


class Augmentation:
    """Turns a block of training images into another draw of it.

    Keras's layers move, colour and erase, each image by a draw of its own, in this order:
    flip, rotation, translation, zoom, brightness, contrast, erasing. MixUp and CutMix
    follow. What a movement uncovers repeats the nearest pixel of the border.

    The result depends on the arguments of the call alone: not on earlier calls, and not
    on the thread. All of it is done on the CPU.

    Args:
        rotation: Largest angle to either side, in degrees, 0..180.
        horizontal_flip: Whether half of the images, on average, are mirrored.
        translation: Largest shift along each side, as a share of it, 0..1.
        zoom: Largest change of size, out or in, as a share, 0 to below 1.
        brightness: Largest value added or taken away, as a share of 255, 0..1.
        contrast: Largest change of the distance to a channel's mean, as a share, 0..1.
        erasing: Probability that a rectangle of the image becomes grey, 0..1. It takes
            2 to 33 % of the image (Zhong et al., AAAI 2020, arXiv:1708.04896).
        mixup: Alpha of MixUp, >= 0; see `ensemble.training.mixing.mix`.
        cutmix: Alpha of CutMix, >= 0; see `ensemble.training.mixing.mix`.
    """

    def __init__(
        self,
        *,
        rotation: float = 10.0,
        horizontal_flip: bool = True,
        translation: float = 0.0,
        zoom: float = 0.0,
        brightness: float = 0.0,
        contrast: float = 0.0,
        erasing: float = 0.0,
        mixup: float = 0.0,
        cutmix: float = 0.0,
    ) -> None:
        with keras.device(local_cpu()):  # beside the device that trains
            layers = list(
                make_layers(
                    rotation=rotation,
                    horizontal_flip=horizontal_flip,
                    translation=translation,
                    zoom=zoom,
                    brightness=brightness,
                    contrast=contrast,
                    erasing=erasing,
                )
            )
            self._chain = _Chain(layers) if layers else None
        self._mixup = mixup
        self._cutmix = cutmix

    def __call__(
        self, images: np.ndarray, targets: np.ndarray, seed: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Augments a block of images.

        Args:
            images: Shape `(n, h, w, 3)`, RGB of 0..255.
            targets: Probability of each class, shape `(n, num_classes)`.
            seed: Of all draws, >= 0.

        Returns:
            Images of 0..255 and targets, float32, of the same shapes; neither shares
            memory with the arguments.
        """
        images, targets = images.astype("float32"), targets.astype("float32")
        if self._chain is not None:
            for start in range(0, len(images), _CHUNK):
                rows = slice(start, start + _CHUNK)
                images[rows] = self._chain.draw(images[rows], [seed, start])
        images, targets = mix(
            images,
            targets,
            np.random.default_rng([seed, len(images)]),
            mixup=self._mixup,
            cutmix=self._cutmix,
        )
        return np.clip(images, 0, 255, out=images), targets


class _Chain(keras.Model):
    """Layers one after the other, compiled to one function where the backend does so."""

    def __init__(self, layers: list[keras.layers.Layer]) -> None:
        # float32, whatever precision the training has
        super().__init__(name="augmentation", dtype="float32")
        self.chain = layers
        self.jit_compile = False  # XLA does not know Keras's affine transformation
        self._drawing = threading.Lock()

    def call(self, images: Any) -> Any:
        for layer in self.chain:
            images = layer(images, training=True)
        return images

    def draw(self, images: np.ndarray, entropy: list[int]) -> np.ndarray:
        """Runs the layers on images, their generators set by the entropy alone."""
        words = np.random.SeedSequence(entropy).generate_state(len(self.chain))
        seeds = words >> 1  # PyTorch's states are of 32 bits with a sign
        with self._drawing, keras.device(local_cpu()):
            for layer, seed in zip(self.chain, seeds.tolist(), strict=True):
                layer.generator.state.assign(np.array([seed, 0], layer.generator.state.dtype))
            return self.predict_on_batch(images)


def make_layers(
    *,
    rotation: float = 0.0,
    horizontal_flip: bool = False,
    translation: float = 0.0,
    zoom: float = 0.0,
    brightness: float = 0.0,
    contrast: float = 0.0,
    erasing: float = 0.0,
) -> Iterator[keras.layers.Layer]:
    """Yields Keras's layers that do something, in their order.

    Ranges go in pairs: of a single number f, `RandomContrast` would only raise the
    contrast, and `RandomErasing` would draw its probability between 0 and f.

    Args: as in `Augmentation`.
    """
    common: dict[str, Any] = {"dtype": "float32", "data_format": "channels_last"}
    moving = {**common, "fill_mode": "nearest", "interpolation": "bilinear"}
    if horizontal_flip:
        yield keras.layers.RandomFlip("horizontal", **common)
    if rotation:
        yield keras.layers.RandomRotation((-rotation / 360, rotation / 360), **moving)
    if translation:
        shift = (-translation, translation)
        yield keras.layers.RandomTranslation(shift, shift, **moving)
    if zoom:
        yield keras.layers.RandomZoom((-zoom, zoom), **moving)
    if brightness:
        yield keras.layers.RandomBrightness((-brightness, brightness), **common)
    if contrast:
        yield keras.layers.RandomContrast((contrast, contrast), **common)
    if erasing:
        yield keras.layers.RandomErasing((erasing, erasing), fill_value=_GREY, **common)
