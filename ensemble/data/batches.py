"""Batches of features or images, and their order in each epoch."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import keras
import numpy as np

_PIECE = 16 * 2**20  # bytes read at a time; from 32 MB on, memory would be asked of the system anew

Inputs = Mapping[str, np.ndarray]
Batch = tuple[Inputs, np.ndarray, np.ndarray]  # inputs, targets and weights
Change = Callable[[Inputs, np.ndarray, int], tuple[Inputs, np.ndarray]]


@dataclass(frozen=True, eq=False)
class Examples:
    """What a model is trained or evaluated on.

    Args:
        inputs: Input name to values of shape `(views, images, h, w, c)`, in memory
            or mapped from a file: a branch's features, or the images themselves.
        targets: Probability of each class, shape `(images, num_classes)`, float32.
        weights: Weight of each image in the loss, shape `(images,)`, float32.
    """

    inputs: Inputs
    targets: np.ndarray
    weights: np.ndarray

    def __len__(self) -> int:
        return len(self.targets)


class Order(NamedTuple):
    """Which images come one after the other, and which view of each.

    Args:
        rows: Numbers of images, shape `(images,)`.
        views: The view of each of them, shape `(images,)`.
    """

    rows: np.ndarray
    views: np.ndarray


def sample_order(
    data: Examples, *, seed: int, epoch: int, chances: np.ndarray | None = None
) -> Order:
    """Shuffles the images and samples a view of each.

    A function of the seed and the epoch alone, on every backend.

    Args:
        data: What to order.
        seed: Of order and views.
        epoch: Counted from 1.
        chances: Probability that an image is sampled, shape `(images,)`, of any sum > 0:
            as many images are sampled as there are, some of them more than once.
            None: each image comes once.
    """
    images = len(data)
    views = next(iter(data.inputs.values())).shape[0]
    generator = np.random.default_rng([seed, epoch])
    if chances is None:
        rows = generator.permutation(images)
    else:
        rows = generator.choice(images, images, p=chances / chances.sum())
    return Order(rows, generator.integers(views, size=images)[rows])


def first_views(data: Examples) -> Order:
    """Returns the images as they are stored, and the first view of each."""
    return Order(np.arange(len(data)), np.zeros(len(data), "int64"))


class Batches(keras.utils.PyDataset):
    """Batches of examples in an order, as `fit`, `evaluate` and `predict` of Keras take them.

    Args:
        data: Inputs, targets and weights.
        batch_size: Images per batch; the last batch may be smaller.
        order: From `sample_order`; by default the first view of each image, as stored.
        change: Gets a batch's inputs `(n, ...)`, targets `(n, num_classes)` and number,
            and returns the inputs and targets to use instead.
    """

    def __init__(
        self,
        data: Examples,
        batch_size: int,
        order: Order | None = None,
        change: Change | None = None,
    ) -> None:
        super().__init__()
        self.data = data
        self.batch_size = batch_size
        self.order = order or first_views(data)
        self.change = change

    def __len__(self) -> int:
        return math.ceil(len(self.order.rows) / self.batch_size)

    def __getitem__(self, index: int) -> Batch:
        start = index * self.batch_size
        rows, views = (part[start : start + self.batch_size] for part in self.order)
        data = self.data
        inputs: Inputs = {name: _take(v, views, rows) for name, v in data.inputs.items()}
        targets = data.targets[rows]
        if self.change is not None:
            inputs, targets = self.change(inputs, targets, index)
        return inputs, targets, data.weights[rows]


def read_maps(values: np.ndarray) -> Iterator[np.ndarray]:
    """Yields each view of each image once, in pieces of at most 16 MB, shape `(n, h, w, c)`."""
    views, images = values.shape[:2]
    bytes_per_image = math.prod(values.shape[2:]) * values.dtype.itemsize
    length = max(1, _PIECE // bytes_per_image)
    for view in range(views):
        for start in range(0, images, length):
            yield values[view, start : start + length]


def _take(values: np.ndarray, views: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Returns `values[views, rows]`, three times as fast, from an array without gaps."""
    return values.reshape(-1, *values.shape[2:]).take(views * values.shape[1] + rows, axis=0)
