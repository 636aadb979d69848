"""Fusion of the branches' feature maps.

The extractor reduces each map, and the classifier joins them. Only the reduced map of a branch
is stored, so it depends on no other branch.
"""

import math
from collections.abc import Mapping
from typing import Literal

import numpy as np
from keras import KerasTensor, Model, layers

from ensemble.data.batches import read_maps
from ensemble.model.layers import average_areas

Fusion = Literal["pooled", "grid", "flat"]

_MIN_DEVIATION = 0.01  # of a channel, as a share of the mean deviation


def reduce_map(feature_map: KerasTensor, fusion: Fusion) -> KerasTensor:
    """Averages a branch's map over all positions for "pooled", to shape `(batch, 1, 1, c)`."""
    if fusion == "pooled":
        return layers.GlobalAveragePooling2D(keepdims=True)(feature_map)
    return feature_map


def join_maps(maps: Mapping[str, KerasTensor], fusion: Fusion) -> KerasTensor:
    """Joins reduced maps along the channels, in the order given.

    Args:
        maps: Branch label to map of shape `(batch, h, w, c)`; h and w may differ between branches.
        fusion: "pooled": maps are 1 x 1 already. "grid": maps are averaged down to the smallest
            grid. "flat": every number of every map becomes a channel.

    Returns:
        Shape `(batch, h, w, sum of c)`; for "pooled" and "flat" h = w = 1.
    """
    if fusion == "flat":
        aligned = [layers.Reshape((1, 1, math.prod(m.shape[1:])))(m) for m in maps.values()]
    else:
        aligned = align_maps(maps)
    return layers.Concatenate(name="fusion")(aligned) if len(aligned) > 1 else aligned[0]


def scale_maps(maps: Mapping[str, KerasTensor]) -> dict[str, KerasTensor]:
    """Adds a standardization of each branch before the fusion, so that no branch dominates.

    The layers do nothing until `adapt_scales` has measured the training features.
    """
    return {
        label: layers.Normalization(axis=-1, name=_scale_name(label))(feature_map)
        for label, feature_map in maps.items()
    }


def adapt_scales(classifier: Model, features: Mapping[str, np.ndarray]) -> None:
    """Sets a classifier's standardization to mean 0 and deviation 1 of each channel.

    Deviations below a hundredth of the branch's mean deviation are raised to it; otherwise
    images in which such a channel differs would dominate.

    Args:
        classifier: One built with standardization; else nothing happens.
        features: Branch label to values of shape `(views, images, h, w, c)`.
    """
    names = {layer.name for layer in classifier.layers}
    for label, values in features.items():
        if _scale_name(label) in names:
            mean, deviation = _moments(values)
            deviation = np.maximum(deviation, _MIN_DEVIATION * deviation.mean() or 1.0)
            # Two maps with these moments stand for all, which may not fit into memory.
            maps = np.stack([mean - deviation, mean + deviation])
            classifier.get_layer(_scale_name(label)).adapt(maps[:, None, None])


def refresh_scales(model: Model) -> None:
    """Updates standardizations, which compute with constants, after their weights changed."""
    for layer in model._flatten_layers():
        if isinstance(layer, layers.Normalization):
            layer.finalize_state()


def align_maps(maps: Mapping[str, KerasTensor]) -> list[KerasTensor]:
    """Averages feature maps down to the smallest grid among them, in the order given.

    Shrinking loses detail but never invents it, so no branch is read at a grid finer than its
    own stride allows.

    Args:
        maps: Branch label to map of shape `(batch, height, width, channels)`.
    """
    height = min(m.shape[1] for m in maps.values())
    width = min(m.shape[2] for m in maps.values())
    return [
        m if m.shape[1:3] == (height, width) else average_areas(m, height, width)
        for m in maps.values()
    ]


def _moments(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns mean and deviation of each channel, float64, shape `(c,)`, in one pass.

    References:
        Chan et al., Updating formulae and a pairwise algorithm for computing sample variances,
        1979.
    """
    count, mean, squares = 0, np.zeros(values.shape[-1]), np.zeros(values.shape[-1])
    for maps in read_maps(values):
        rows = maps.reshape(-1, maps.shape[-1])
        shift = rows.mean(axis=0, dtype="float64") - mean
        squares += rows.var(axis=0, dtype="float64") * len(rows)
        squares += shift**2 * count * len(rows) / (count + len(rows))
        count += len(rows)
        mean += shift * len(rows) / count
    return mean, np.sqrt(squares / count)


def _scale_name(label: str) -> str:
    return f"{label.replace(':', '_')}_scale"
