"""Features of frozen branches: each branch sees each view of each image once."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import keras
import numpy as np

from configs.errors import ConfigError
from ensemble.datasets.loading import Split
from ensemble.pipeline import stream
from ensemble.progress import progress_bar

Features = dict[str, np.ndarray]  # branch label to shape (views, images, h, w, c)
View = Callable[[np.ndarray, Sequence[bytes], int], np.ndarray]

_BATCH = 64  # images at a time; larger ones are no faster on a CPU
_SHARE_OF_MEMORY = 0.8  # for features; branches, batches and the rest need some too


def extract(
    extractor: keras.Model,
    split: Split,
    digests: Sequence[bytes],
    *,
    views: int = 1,
    make_view: View | None = None,
    label: str = "Extracting features",
) -> Features:
    """Runs a frozen extractor once over every view of every image.

    Args:
        extractor: Image to `{branch label: map}`, from `build_extractor`.
        split: The images, all readable.
        digests: What identifies each image.
        views: Number of views; the first is the image itself.
        make_view: From images, digests and a view's number to that view; needed
            for more than one view.
        label: Text of the progress bar.

    Returns:
        Branch label to float32 features of shape `(views, images, h, w, c)`.

    Raises:
        ConfigError: If they would not fit into memory.
    """
    _refuse_too_large(extractor, len(split) * views)
    image_size = extractor.input_shape[1]
    features = {
        branch: np.empty((views, len(split), *feature_map.shape[1:]), "float32")
        for branch, feature_map in extractor.output.items()
    }
    with progress_bar(label, len(split) * views) as bar:
        for rows, images in stream(split, image_size, batch_size=_BATCH):
            for view in range(views):
                seen = make_view(images, digests[rows], view) if make_view else images
                maps = extractor.predict_on_batch(seen.astype("float32"))
                for branch, values in maps.items():
                    features[branch][view, rows] = values
                bar.update(len(images))
    return features


def _refuse_too_large(extractor: keras.Model, views: int) -> None:
    numbers = sum(math.prod(feature_map.shape[1:]) for feature_map in extractor.output.values())
    needed, memory = 4 * numbers * views, _memory()
    if memory is not None and needed > _SHARE_OF_MEMORY * memory:
        raise ConfigError(
            f"Features of {views:,} views, {numbers:,} numbers each, take {needed / 1e9:.1f} GB; "
            f"this machine has {memory / 1e9:.1f} GB. Use --fusion pooled, fewer --views, fewer "
            "branches or a smaller --image-size."
        )


def _memory() -> int | None:
    """Returns the machine's memory in bytes, None where the system does not tell."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


@dataclass(frozen=True, eq=False)
class LabelledFeatures:
    """Features with what a training needs beside them.

    Args:
        inputs: Input name to values of shape `(views, images, ...)`.
        labels: Class numbers, shape `(images,)`.
        weights: What an image counts in the loss, shape `(images,)`.
    """

    inputs: Mapping[str, np.ndarray]
    labels: np.ndarray
    weights: np.ndarray


class ViewBatches(keras.utils.PyDataset):
    """Batches that take one view of each image, shuffled and drawn anew in every epoch.

    The order and the views of an epoch are a function of the seed and the
    epoch's number alone, on every backend.

    Args:
        data: What to take batches of.
        batch_size: Images in a batch; the last one may be smaller.
        seed: Of order and views; None: in order, and always the first view.
    """

    def __init__(self, data: LabelledFeatures, *, batch_size: int, seed: int | None = None) -> None:
        super().__init__()
        self._data = data
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = 0
        self._draw()

    def __len__(self) -> int:
        return -(-len(self._data.labels) // self._batch_size)

    def __getitem__(self, index: int) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
        rows = self._order[index * self._batch_size : (index + 1) * self._batch_size]
        views = self._views[rows]
        inputs = {name: values[views, rows] for name, values in self._data.inputs.items()}
        return inputs, self._data.labels[rows], self._data.weights[rows]

    def on_epoch_end(self) -> None:
        self._epoch += 1
        self._draw()

    def _draw(self) -> None:
        images = len(self._data.labels)
        if self._seed is None:
            self._order = np.arange(images)
            self._views = np.zeros(images, "int64")
            return
        generator = np.random.default_rng([self._seed, self._epoch])
        self._order = generator.permutation(images)
        views = len(next(iter(self._data.inputs.values())))
        self._views = generator.integers(views, size=images)
