"""Random augmentation of training images in each epoch of fine-tuning."""

import threading
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from configs.schema import AugmentConfig
from ensemble.training.distribution import on_local_cpu
from ensemble.training.mixing import mix

_GREY = 115.0  # ImageNet's mean, of all channels


class Augmentation:
    """Augments a batch of training images at random.

    Keras's layers move, colour and erase, each image by random values of its own, in this order:
    flip, rotation, translation, zoom, brightness, contrast, erasing. MixUp and CutMix
    follow. What a movement uncovers takes the nearest pixel of the border.

    The result depends only on the arguments of the call, not on earlier calls or the
    thread. All of it is computed on the CPU.

    Args:
        settings: The settings; see `ensemble.training.mixing.mix` for MixUp and CutMix.
    """

    def __init__(self, settings: AugmentConfig) -> None:
        with on_local_cpu():
            layers = list(make_layers(settings))
            self._chain = _Chain(layers) if layers else None
        self._settings = settings

    def __call__(
        self, images: np.ndarray, targets: np.ndarray, seed: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Augments a batch of images.

        Args:
            images: Shape `(n, h, w, 3)`, RGB of 0..255.
            targets: Probability of each class, shape `(n, num_classes)`.
            seed: Random seed, >= 0.

        Returns:
            Images of 0..255 and targets, float32, of the same shapes; neither shares
            memory with the arguments.
        """
        images, targets = images.astype("float32"), targets.astype("float32")
        if self._chain is not None:
            images = self._chain.augment(images, seed)
        images, targets = mix(
            images,
            targets,
            np.random.default_rng([seed, len(images)]),
            mixup=self._settings.mixup,
            cutmix=self._settings.cutmix,
        )
        return np.clip(images, 0, 255, out=images), targets


class _Chain(keras.Model):
    """Layers one after the other, compiled to one function where the backend does so."""

    def __init__(self, layers: list[keras.layers.Layer]) -> None:
        # float32, whatever precision the training has
        super().__init__(name="augmentation", dtype="float32")
        self.chain = layers
        self.jit_compile = False  # XLA does not know Keras's affine transformation
        self._running = threading.Lock()

    def call(self, images: Any) -> Any:
        for layer in self.chain:
            images = layer(images, training=True)
        return images

    def augment(self, images: np.ndarray, seed: int) -> np.ndarray:
        """Runs the layers on images, their generators set by the seed."""
        words = np.random.SeedSequence(seed).generate_state(len(self.chain))
        seeds = words >> 1  # PyTorch's states are of 32 bits with a sign
        with self._running, on_local_cpu():
            for layer, seed in zip(self.chain, seeds.tolist(), strict=True):
                layer.generator.state.assign(np.array([seed, 0], layer.generator.state.dtype))
            return np.array(self.predict_on_batch(images))


def make_layers(settings: AugmentConfig) -> Iterator[keras.layers.Layer]:
    """Yields Keras's layers that do something, in their order.

    Ranges go in pairs: of a single number f, `RandomContrast` would only raise the
    contrast, and `RandomErasing` would sample its probability between 0 and f.
    """
    common: dict[str, Any] = {"dtype": "float32", "data_format": "channels_last"}
    moving = {**common, "fill_mode": "nearest", "interpolation": "bilinear"}
    if settings.horizontal_flip:
        yield keras.layers.RandomFlip("horizontal", **common)
    if settings.rotation:
        turn = settings.rotation / 360
        yield keras.layers.RandomRotation((-turn, turn), **moving)
    if settings.translation:
        shift = (-settings.translation, settings.translation)
        yield keras.layers.RandomTranslation(shift, shift, **moving)
    if settings.zoom:
        yield keras.layers.RandomZoom((-settings.zoom, settings.zoom), **moving)
    if settings.brightness:
        change = (-settings.brightness, settings.brightness)
        yield keras.layers.RandomBrightness(change, **common)
    if settings.contrast:
        yield keras.layers.RandomContrast((settings.contrast, settings.contrast), **common)
    if settings.erasing:
        chance = (settings.erasing, settings.erasing)
        yield keras.layers.RandomErasing(chance, fill_value=_GREY, **common)
