"""Layers of this package in model files of 0.1, which are replaced by standard Keras layers."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import KerasTensor

from branches.preprocessing import scale_pixels
from branches.registry import Scaling
from ensemble.model.layers import average_areas, class_probabilities, mean_logits
from ensemble.model.optimizers import FusedAdam


class _LegacyLayer(keras.layers.Layer):
    """A layer without weights whose `call` is made of standard Keras layers and operations."""


class ImageNetPreprocessing(_LegacyLayer):
    def __init__(self, scaling: Scaling, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.scaling = scaling

    def call(self, images: KerasTensor) -> KerasTensor:
        return scale_pixels(images, self.scaling)


class ClassProbabilities(_LegacyLayer):
    def __init__(self, classes: Sequence[str], temperature: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.classes = tuple(classes)
        self.temperature = temperature

    def call(self, logits: KerasTensor) -> KerasTensor:
        return class_probabilities(logits, self.temperature)


class AreaPooling(_LegacyLayer):
    def __init__(self, height: int, width: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.height, self.width = height, width

    def call(self, maps: KerasTensor) -> KerasTensor:
        return average_areas(maps, self.height, self.width)


class MeanLogits(_LegacyLayer):
    def __init__(self, weights: Sequence[float], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.mixture = tuple(weights)

    def call(self, probabilities: Sequence[KerasTensor]) -> KerasTensor:
        return mean_logits(probabilities, self.mixture)


LEGACY_CLASSES: dict[str, type] = {
    "branches>ImageNetPreprocessing": ImageNetPreprocessing,
    "ensemble>AreaPooling": AreaPooling,
    "ensemble>ClassProbabilities": ClassProbabilities,
    "ensemble>FusedAdam": FusedAdam,  # a file may name the optimizer of its training
    "ensemble>MeanLogits": MeanLogits,
}


def replace_legacy_layers(model: keras.Model) -> keras.Model:
    """Returns a functional model that shares all weights and consists of standard layers."""

    def call(layer: keras.Operation, *args: Any, **kwargs: Any) -> Any:
        if isinstance(layer, _LegacyLayer):
            return layer.call(*args)
        return layer(*args, **kwargs)

    return keras.models.clone_model(
        model, clone_function=lambda layer: layer, call_function=call, recursive=True
    )
