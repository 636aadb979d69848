"""Parts of models made of standard Keras layers, which load without this package."""

import math
from collections.abc import Sequence

import numpy as np
from keras import KerasTensor, layers, ops


def class_probabilities(logits: KerasTensor, temperature: float = 1.0) -> KerasTensor:
    """Divides logits by a temperature and applies softmax, in float32 under any policy.

    The layers are called "temperature" and "probabilities".

    Args:
        logits: Shape `(batch, num_classes)`.
        temperature: Divisor of the logits; see `ensemble.metrics.calibration`.

    Raises:
        ValueError: If the temperature is not a finite number above 0.
    """
    if not 0 < temperature < math.inf:
        raise ValueError(f"The temperature must be above 0. Received: {temperature}.")
    scaled = layers.Rescaling(1 / temperature, dtype="float32", name="temperature")(logits)
    return layers.Softmax(dtype="float32", name="probabilities")(scaled)


def average_areas(maps: KerasTensor, height: int, width: int) -> KerasTensor:
    """Averages a feature map down to a smaller grid of any size.

    Each new cell is the mean of the area that it covers, so the mean of the map is kept. Unlike
    Keras's adaptive pooling it works for every pair of sizes on every backend.

    Args:
        maps: Shape `(batch, h, w, c)`.
        height: New height, at most h.
        width: New width, at most w.

    Returns:
        Shape `(batch, height, width, c)`.
    """
    rows, columns = overlaps(maps.shape[1], height), overlaps(maps.shape[2], width)
    return ops.einsum("yh,bhwc,xw->byxc", rows, maps, columns)


def overlaps(cells: int, new: int) -> np.ndarray:
    """Returns the share of each of `cells` cells in each of `new` ones, shape `(new, cells)`.

    Example:
        >>> overlaps(3, 2)
        array([[0.667, 0.333, 0.   ],
               [0.   , 0.333, 0.667]], dtype=float32)
    """
    edges = np.arange(cells + 1) * new / cells
    low = np.maximum(edges[:-1], np.arange(new)[:, None])
    high = np.minimum(edges[1:], np.arange(new)[:, None] + 1)
    return np.clip(high - low, 0, None).astype("float32")


def mean_logits(probabilities: Sequence[KerasTensor], weights: Sequence[float]) -> KerasTensor:
    """Returns logits whose softmax is the weighted mean of several models' probabilities.

    Args:
        probabilities: One map of shape `(batch, num_classes)` per model, float32.
        weights: One per model, at least 0, which sum to 1.
    """
    parts = [weight * part for weight, part in zip(weights, probabilities, strict=True)]
    return ops.log(ops.maximum(sum(parts[1:], parts[0]), float(np.finfo("float32").tiny)))
