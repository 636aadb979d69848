"""Builds branches: one nested Keras model each, from an image to a feature map."""

import importlib
from collections.abc import Callable
from typing import Any

import keras

from branches.preprocessing import with_scaling
from branches.registry import BRANCHES, ImageShape, check_size
from branches.weights import weighted_backbone


def build_branch(
    name: str,
    *,
    input_shape: ImageShape = (96, 96, 3),
    weights: str = "imagenet",
    tag: str = "",
    seed: int = 0,
) -> keras.Model:
    """Builds a branch: RGB image of 0..255 in, feature map of rank 4 out.

    The pixels are scaled inside, as the backbone's weights expect them. The
    model can be called in any functional model, beside other branches and
    beside itself.

    Args:
        name: A registered branch, such as "vgg16".
        input_shape: `(height, width, 3)`; None leaves height or width open.
        weights: "imagenet", "random" or the path of an `.h5` or `.weights.h5` file.
        tag: Tells the model from another one of the same backbone: the model is
            called `vgg16`, or `vgg16_b` with tag "b".
        seed: Decides random weights, together with the name and the tag, so that
            a branch does not change with the company it keeps.

    Returns:
        A model from `(batch, height, width, 3)` to `(batch, h, w, c)`.

    Raises:
        ConfigError: If the branch is unknown or the image too small for it.
        WeightsError: If the weights cannot be had or do not fit.

    Example:
        >>> build_branch("vgg16", input_shape=(96, 96, 3), weights="random").output_shape
        (None, 3, 3, 512)
    """
    spec = BRANCHES.get(name)
    check_size(spec, input_shape)
    model_name = f"{name}_{tag}" if tag else name
    backbone = weighted_backbone(
        spec,
        _resolve(spec.builder),
        input_shape=input_shape,
        weights=weights,
        seed=f"{seed}/{model_name}",
    )
    return with_scaling(backbone, spec.preprocessing, name=model_name)


def freeze(branch: keras.Model) -> keras.Model:
    """Makes all weights of a branch constant, BatchNorm's moving statistics too.

    Compile again after it, or a compiled model does not notice.
    """
    branch.trainable = False
    return branch


def _resolve(builder: str | Callable[..., Any]) -> Callable[..., Any]:
    if callable(builder):
        return builder
    module, _, function = builder.partition(":")
    return getattr(importlib.import_module(module), function)
