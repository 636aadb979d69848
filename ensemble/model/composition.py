"""The ensemble: a classifier after an extractor, composed into one model."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, Unpack

import keras
import numpy as np

from branches.builder import build_branch, freeze
from branches.registry import ImageShape
from configs.schema import Branch
from ensemble.model.fusion import Fusion, join_maps, reduce_map, scale_maps
from ensemble.model.layers import class_probabilities
from ensemble.model.model_file import ModelRecord, load_error, load_network, save_network
from heads.builder import build_head

FeatureShape = tuple[int, int, int]


@dataclass(frozen=True)
class MultiBranchModel:
    """An ensemble and its two halves; a baseline is one with a single branch.

    Args:
        extractor: Image `(batch, height, width, 3)`, RGB of 0..255, to
            `{branch label: map (batch, h, w, c)}`. Frozen.
        classifier: Those maps to class probabilities `(batch, num_classes)`.
        model: The classifier after the extractor: image to probabilities.
        classes: Class names, in the order of the probabilities.
        temperature: Divisor of the logits before the softmax; 1 where nothing was calibrated.
    """

    extractor: keras.Model
    classifier: keras.Model
    model: keras.Model
    classes: tuple[str, ...]
    temperature: float = 1.0

    @property
    def image_size(self) -> int:
        """Height and width of the image, in pixels."""
        return self.model.input_shape[1]

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Returns class probabilities of shape `(batch, num_classes)`, float32.

        The batch is padded to a power of two, so that few sizes are compiled.

        Args:
            images: Shape `(batch, height, width, 3)`, float32, RGB of 0..255; at least one.
        """
        size = 1 << (len(images) - 1).bit_length()
        filled = np.zeros((size, *images.shape[1:]), np.float32)
        filled[: len(images)] = images
        return np.asarray(self.model.predict_on_batch(filled))[: len(images)]

    def with_temperature(self, temperature: float) -> "MultiBranchModel":
        """Returns a model that shares all weights and has another temperature, above 0."""
        probabilities = class_probabilities(logits_of(self.classifier), temperature)
        classifier = keras.Model(self.classifier.input, probabilities, name="classifier")
        return compose(self.extractor, classifier, self.classes, temperature)

    def save(
        self,
        path: str | Path,
        *,
        protocol: Mapping[str, Any] | None = None,
        source: Mapping[str, Any] | None = None,
    ) -> None:
        """Saves the ensemble as a `.keras` file that also loads without this package.

        Class names, temperature, image size and branches are stored in it as `ensemble.json`.

        Args:
            path: File name, ending in `.keras`.
            protocol: How images and labels were prepared, as JSON values.
            source: Where the model comes from, as JSON values.
        """
        record = ModelRecord(
            classes=self.classes,
            temperature=self.temperature,
            image_size=self.image_size,
            branches=feature_shapes(self.extractor),
            protocol=dict(protocol or {}),
            source=dict(source or {}),
        )
        save_network(path, self.with_temperature(self.temperature).model, record)  # uncompiled

    @classmethod
    def load(cls, path: str | Path) -> "MultiBranchModel":
        """Loads a saved ensemble in Keras's safe mode.

        Raises:
            RunError: If the file is missing, damaged or not an ensemble.
        """
        model, record = load_network(path)
        try:
            extractor, classifier = model.get_layer("extractor"), model.get_layer("classifier")
            shapes, scale = feature_shapes(extractor), classifier.get_layer("temperature").scale
            size = record.image_size
            sound = (
                model.input_shape == (None, size, size, 3)
                and model.output_shape == (None, len(record.classes))
                and shapes == record.branches
                and math.isclose(scale * record.temperature, 1)
            )
        except (AttributeError, TypeError, ValueError) as error:
            raise load_error(path, "it is another kind of model") from error
        if not sound:
            raise load_error(path, "its image, branches, class names or temperature do not fit")
        return cls(extractor, classifier, model, record.classes, record.temperature)


class ClassifierOptions(TypedDict, total=False):
    """Options of `build_classifier`, and their types."""

    fusion: Fusion
    standardize: bool
    head: str
    head_options: Mapping[str, Any] | None


def build_model(
    branches: Sequence[str],
    *,
    classes: Sequence[str],
    image_size: int = 96,
    weights: str | Mapping[str, str] = "imagenet",
    seed: int = 0,
    **options: Unpack[ClassifierOptions],
) -> MultiBranchModel:
    """Builds an ensemble of any number of branches, with one shared head.

    Args:
        branches: Labels such as `["vgg16", "densenet121"]` or `["vgg16", "vgg16:b"]`.
        classes: Class names, in the order of the probabilities.
        image_size: Height and width in pixels.
        weights: For all branches, or by branch label; see `branches.build_branch`.
        seed: Seed of random branch weights. The head's initial weights follow
            `keras.utils.set_random_seed`.
        **options: `fusion`, `standardize`, `head` and `head_options`; see `build_classifier`.

    Raises:
        ConfigError: If a name, an option or the image size does not fit.
        WeightsError: If weights are not available.

    Example:
        >>> ensemble = build_model(["vgg16"], classes=["cat", "dog"], weights="random")
        >>> ensemble.model.output_shape
        (None, 2)
    """
    extractor = build_extractor(
        branches,
        input_shape=(image_size, image_size, 3),
        weights=weights,
        fusion=options.get("fusion", "pooled"),
        seed=seed,
    )
    classifier = build_classifier(feature_shapes(extractor), classes=classes, **options)
    return compose(extractor, classifier, classes)


def build_extractor(
    branches: Sequence[str],
    *,
    input_shape: ImageShape,
    weights: str | Mapping[str, str] = "imagenet",
    fusion: Fusion = "pooled",
    seed: int = 0,
) -> keras.Model:
    """Builds the frozen half: `(batch, height, width, 3)` to `{label: (batch, h, w, c)}`.

    Args:
        branches: Labels, `backbone` or `backbone:tag`.
        input_shape: `(height, width, 3)`.
        weights: For all branches, or by branch label.
        fusion: As in `build_classifier`.
        seed: Seed of random weights.
    """
    image = keras.Input(input_shape, name="image")
    maps = {}
    for label in branches:
        branch = Branch.model_validate(label)
        model = build_branch(
            branch.backbone,
            input_shape=input_shape,
            weights=weights if isinstance(weights, str) else weights.get(label, "imagenet"),
            tag=branch.tag,
            seed=seed,
        )
        maps[label] = reduce_map(freeze(model)(image), fusion)
    return freeze(keras.Model(image, maps, name="extractor"))


def build_classifier(
    shapes: Mapping[str, FeatureShape],
    *,
    classes: Sequence[str],
    fusion: Fusion = "pooled",
    standardize: bool = False,
    head: str = "dense",
    head_options: Mapping[str, Any] | None = None,
) -> keras.Model:
    """Builds the trained half: `{label: (batch, h, w, c)}` to `(batch, num_classes)`.

    Args:
        shapes: Branch label to the `(h, w, c)` of its reduced map.
        classes: Class names, in the order of the probabilities.
        fusion: "pooled", "grid" or "flat"; the same as that of the extractor.
        standardize: Whether each branch's features are scaled to mean 0 and deviation 1 before
            they are joined.
        head: A registered head.
        head_options: The head's own options.
    """
    maps = {label: keras.Input(shape, name=label) for label, shape in shapes.items()}
    scaled = scale_maps(maps) if standardize else maps
    features = build_head(head, join_maps(scaled, fusion), **(head_options or {}))
    logits = keras.layers.Dense(len(classes), name="logits")(features)
    return keras.Model(maps, class_probabilities(logits), name="classifier")


def compose(
    extractor: keras.Model,
    classifier: keras.Model,
    classes: Sequence[str],
    temperature: float = 1.0,
) -> MultiBranchModel:
    """Composes an extractor and a classifier; the composed model shares their weights.

    Args:
        extractor: From `build_extractor`.
        classifier: From `build_classifier`.
        classes: Class names, in the order of the probabilities.
        temperature: Divisor of the logits inside the classifier.
    """
    image = keras.Input(extractor.input_shape[1:], name="image")
    model = keras.Model(image, classifier(extractor(image)), name="ensemble")
    return MultiBranchModel(extractor, classifier, model, tuple(classes), temperature)


def logits_of(classifier: keras.Model) -> keras.KerasTensor:
    """Returns the logits of a classifier, before the temperature divides them."""
    return classifier.get_layer("temperature").input


def feature_shapes(extractor: keras.Model) -> dict[str, FeatureShape]:
    """Returns the `(h, w, c)` of each branch's reduced map, by branch label."""
    return {label: m.shape[1:] for label, m in extractor.output.items()}
