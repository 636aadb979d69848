"""Builds branches: one nested Keras model each, from an image to a feature map."""

import importlib
from collections.abc import Sequence

import keras

from branches.arithmetic import set_arithmetic
from branches.preprocessing import with_scaling
from branches.registry import (
    BRANCHES,
    BranchSpec,
    ImageShape,
    check_size,
    check_stages,
    layers_from_end,
    spec_of_model,
)
from branches.weights import weighted_backbone
from configs.errors import ConfigError


def build_branch(
    name: str,
    *,
    input_shape: ImageShape = (96, 96, 3),
    weights: str = "imagenet",
    tag: str = "",
    seed: int = 0,
) -> keras.Model:
    """Builds a branch: RGB image of 0..255 in, feature map of rank 4 out.

    Pixels are scaled inside, as the backbone's weights expect them. The model can be called in
    any functional model, also beside another branch of the same backbone.

    Args:
        name: A registered branch, such as "vgg16".
        input_shape: `(height, width, 3)`; None leaves height or width open.
        weights: "imagenet", "random" or the path of an `.h5` or `.weights.h5` file.
        tag: Distinguishes branches of one backbone: the model is called `vgg16`, or `vgg16_b`
            with tag "b".
        seed: Seed of random weights, which also depend on name and tag, but not on other
            branches.

    Returns:
        A model from `(batch, height, width, 3)` to `(batch, h, w, c)`.

    Raises:
        ConfigError: If the branch is unknown or the image too small for it.
        WeightsError: If the weights are not available or do not fit.

    Example:
        >>> build_branch("vgg16", input_shape=(96, 96, 3), weights="random").output_shape
        (None, 3, 3, 512)
    """
    set_arithmetic()
    spec = BRANCHES.get(name)
    check_size(spec, input_shape)
    model_name = f"{name}_{tag}" if tag else name
    build = spec.builder
    if isinstance(build, str):
        module, _, function = build.partition(":")
        build = getattr(importlib.import_module(module), function)
    backbone = weighted_backbone(
        spec, build, input_shape=input_shape, weights=weights, seed=f"{seed}/{model_name}"
    )
    return with_scaling(backbone, spec.preprocessing, name=model_name)


def freeze(branch: keras.Model) -> keras.Model:
    """Makes all weights of a branch constant, BatchNorm's moving statistics too.

    A compiled model has to be compiled again.
    """
    branch.trainable = False
    return branch


def unfreeze(
    branch: keras.Model, stages: Sequence[str], *, batch_norm: bool = False
) -> keras.Model:
    """Makes the weights of some stages trainable, and all others of the branch constant.

    A compiled model has to be compiled again. A model that contains the branch must be
    trainable; setting its `trainable` changes all layers inside, so do that first.

    BatchNormalization stays frozen, since small batches would replace the moving statistics
    that the other weights were trained with.

    Args:
        branch: As `build_branch` returns it.
        stages: Names of stages, see `BranchSpec.stages`; "last:N" for the last N
            layers of the backbone, those without weights included; or "all".
        batch_norm: Whether to unfreeze BatchNormalization in these stages too. Its moving
            statistics then change in `fit`.

    Returns:
        The same branch.

    Raises:
        ConfigError: If the branch has no such stage or too few layers, which leaves it as it
            was; or if there is nothing to train, which leaves it frozen.

    Example:
        >>> branch = build_branch("vgg16", weights="random")
        >>> [weight.path for weight in unfreeze(branch, ["last:2"]).trainable_variables]
        ['block5_conv3/kernel', 'block5_conv3/bias']
    """
    spec = spec_of_model(branch.name)
    check_stages(spec, stages)
    backbone = backbone_of(branch)
    chosen = [layer for stage in stages for layer in _stage_layers(spec, backbone, stage)]
    branch.trainable = True
    for layer in backbone.layers:
        layer.trainable = False
    for layer in chosen:
        layer.trainable = True
    for layer in [] if batch_norm else batch_norms(backbone):
        layer.trainable = False
    if not branch.trainable_variables:
        freeze(branch)
        raise ConfigError(
            f"The stages to unfreeze of branch {spec.name!r} hold no weights to train"
            f"{'' if batch_norm else ' besides BatchNormalization'}. "
            f"Received: {', '.join(stages) or 'none'}. Add stages, or more layers by last:N."
        )
    return branch


thaw = unfreeze  # its name in 0.1


def backbone_of(branch: keras.Model) -> keras.Model:
    """Returns the backbone inside a branch that `build_branch` made."""
    return next(layer for layer in branch.layers if isinstance(layer, keras.Model))


def batch_norms(model: keras.Model) -> list[keras.layers.BatchNormalization]:
    """Returns the BatchNormalization layers of a model, however deep they are nested."""
    layers = model._flatten_layers()  # Keras has no public walk into composite layers
    return [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization)]


def _stage_layers(spec: BranchSpec, backbone: keras.Model, stage: str) -> list[keras.Layer]:
    layers = backbone.layers
    if stage == "all":
        return layers
    count = layers_from_end(stage)
    if count is None:
        position = list(spec.stages).index(stage)
        ends = [0, *(_end(backbone, layer, spec) for layer in spec.stages.values())]
        return layers[ends[position] : ends[position + 1]]
    if count > len(layers):
        raise ConfigError(
            f"Branch {spec.name!r} has {len(layers)} layers. Received: {stage!r}. "
            f"Use last:{len(layers)} at most, or all."
        )
    return layers[-count:]


def _end(backbone: keras.Model, last: str, spec: BranchSpec) -> int:
    """Returns the number of layers up to and including the one called `last`."""
    names = [layer.name for layer in backbone.layers]
    if last not in names:
        raise ConfigError(
            f"Branch {spec.name!r} has a stage that ends at layer {last!r}, which its backbone "
            "lacks. Use 'all' or 'last:N', or correct the stages where the branch is registered."
        )
    return names.index(last) + 1
