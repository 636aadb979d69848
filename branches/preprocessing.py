"""Pixel scaling as a layer, so that it travels inside the branch and is saved with it."""

from typing import Any

import keras
import numpy as np
from keras import KerasTensor, ops

from branches.registry import Scaling

# ImageNet statistics: BGR means of the Caffe models in 0..255, RGB means and
# deviations of the Torch models in 0..1. They are those of
# keras.applications.imagenet_utils.preprocess_input, against which a test checks.
_CAFFE_MEAN = (103.939, 116.779, 123.68)
_TORCH_MEAN = (0.485, 0.456, 0.406)
_TORCH_STD = (0.229, 0.224, 0.225)


@keras.saving.register_keras_serializable(package="branches")
class ImageNetPreprocessing(keras.layers.Layer):
    """Scales RGB pixels of 0..255 as a backbone's ImageNet weights expect them.

    Shape `(batch, h, w, 3)` in and out. Computes in float32 whatever the global
    policy is, since 8 bits of mantissa cannot hold 256 grey levels.

    Args:
        scaling: "caffe", "torch", "tf" or "none", as in `BranchSpec`.
    """

    def __init__(self, scaling: Scaling, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        self.scaling = scaling

    def call(self, images: KerasTensor) -> KerasTensor:
        if self.scaling == "caffe":
            return ops.flip(images, axis=-1) - np.array(_CAFFE_MEAN, np.float32)
        if self.scaling == "torch":
            return (images / 255.0 - np.array(_TORCH_MEAN, np.float32)) / np.array(
                _TORCH_STD, np.float32
            )
        if self.scaling == "tf":
            return images / 127.5 - 1.0
        return images

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "scaling": self.scaling}


def with_scaling(backbone: keras.Model, scaling: Scaling, *, name: str) -> keras.Model:
    """Puts pixel scaling in front of a backbone and makes both one model."""
    image = keras.Input(backbone.input_shape[1:], name="image")
    scaled = ImageNetPreprocessing(scaling, name="scaling")(image)
    return keras.Model(image, backbone(scaled), name=name)
