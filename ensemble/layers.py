"""Layers of our own, registered so that a saved model loads in Keras's safe mode."""

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import KerasTensor, ops


@keras.saving.register_keras_serializable(package="ensemble")
class ClassProbabilities(keras.layers.Layer):
    """Softmax that knows the classes' names, so that a model file says what it predicts.

    Shape `(batch, num_classes)` in and out. Computes in float32 whatever the
    global policy is.

    Args:
        classes: Names, in the order of the logits.
        temperature: What the logits are divided by; see `ensemble.evaluation.calibration`.

    Raises:
        ValueError: If the temperature is not a number above 0.
    """

    def __init__(self, classes: Sequence[str], temperature: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        if not 0 < temperature < math.inf:
            raise ValueError(f"The temperature must be above 0. Received: {temperature}.")
        self.classes = tuple(classes)
        self.temperature = float(temperature)

    def call(self, logits: KerasTensor) -> KerasTensor:
        return ops.softmax(logits / self.temperature)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        own = {"classes": list(self.classes), "temperature": self.temperature}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable(package="ensemble")
class AreaPooling(keras.layers.Layer):
    """Averages a feature map down to a smaller grid of any size.

    Each new cell is the mean of the area it covers, cells at its border counted
    by the part that lies inside, so the mean of the whole map is kept. Unlike
    Keras's adaptive pooling it works for every pair of sizes on every backend.

    Shape `(batch, h, w, c)` to `(batch, height, width, c)`.

    Args:
        height: New height, at most h.
        width: New width, at most w.
    """

    def __init__(self, height: int, width: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.height = height
        self.width = width

    def call(self, maps: KerasTensor) -> KerasTensor:
        rows = ops.cast(overlaps(maps.shape[1], self.height), maps.dtype)
        columns = ops.cast(overlaps(maps.shape[2], self.width), maps.dtype)
        return ops.einsum("yh,bhwc,xw->byxc", rows, maps, columns)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (input_shape[0], self.height, self.width, input_shape[3])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "height": self.height, "width": self.width}


def overlaps(cells: int, new: int) -> np.ndarray:
    """Returns the share of each of `cells` cells in each of `new` ones, shape `(new, cells)`.

    Example:
        >>> overlaps(3, 2)
        array([[0.667, 0.333, 0.   ],
               [0.   , 0.333, 0.667]])
    """
    edges = np.arange(cells + 1) * new / cells
    low = np.maximum(edges[:-1], np.arange(new)[:, None])
    high = np.minimum(edges[1:], np.arange(new)[:, None] + 1)
    return np.clip(high - low, 0, None)


@keras.saving.register_keras_serializable(package="ensemble")
class MeanLogits(keras.layers.Layer):
    """Logits whose softmax is the weighted mean of several models' probabilities.

    They are the logarithm of that mean. A list of maps of shape
    `(batch, num_classes)` in, one such map out. Computes in float32 whatever
    the global policy is.

    Args:
        weights: One for each model, at least 0, which sum to 1.
    """

    def __init__(self, weights: Sequence[float], **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        self.mixture = tuple(float(weight) for weight in weights)

    def call(self, probabilities: Sequence[KerasTensor]) -> KerasTensor:
        parts = [weight * part for weight, part in zip(self.mixture, probabilities, strict=True)]
        return ops.log(ops.maximum(sum(parts[1:], parts[0]), np.finfo("float32").tiny))

    def compute_output_shape(
        self, input_shape: Sequence[tuple[int | None, ...]]
    ) -> tuple[int | None, ...]:
        return input_shape[0]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "weights": list(self.mixture)}
