"""Pixel scaling made of standard Keras layers, saved as part of the branch."""

import keras
from keras import KerasTensor, layers, ops

from branches.registry import Scaling

# ImageNet statistics of keras.applications.imagenet_utils.preprocess_input: BGR means of the
# Caffe models in 0..255, RGB means and deviations of the Torch models in 0..1.
_CAFFE_MEAN = (103.939, 116.779, 123.68)
_TORCH_MEAN = (0.485, 0.456, 0.406)
_TORCH_STD = (0.229, 0.224, 0.225)

_RESCALING: dict[Scaling, tuple[float | list[float], float | list[float]]] = {
    "caffe": (1.0, [-mean for mean in _CAFFE_MEAN]),
    "torch": (
        [1 / (255 * std) for std in _TORCH_STD],
        [-mean / std for mean, std in zip(_TORCH_MEAN, _TORCH_STD, strict=True)],
    ),
    "tf": (1 / 127.5, -1.0),
    "none": (1.0, 0.0),
}


def scale_pixels(images: KerasTensor, scaling: Scaling) -> KerasTensor:
    """Scales RGB pixels of 0..255 as a backbone's ImageNet weights expect them.

    Computes in float32, since 8 bits of mantissa cannot hold 256 grey levels.

    Args:
        images: Shape `(batch, h, w, 3)`.
        scaling: "caffe", "torch", "tf" or "none", as in `BranchSpec`.

    Returns:
        Scaled images of the same shape; BGR for "caffe", else RGB.
    """
    if scaling == "caffe":
        images = ops.flip(images, axis=-1)
    scale, offset = _RESCALING[scaling]
    return layers.Rescaling(scale, offset, dtype="float32", name="scaling")(images)


def with_scaling(backbone: keras.Model, scaling: Scaling, *, name: str) -> keras.Model:
    """Puts pixel scaling in front of a backbone and makes both one model."""
    image = keras.Input(backbone.input_shape[1:], name="image")
    return keras.Model(image, backbone(scale_pixels(image, scaling)), name=name)
