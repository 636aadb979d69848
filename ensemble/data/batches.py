"""Batches of features or images: their order in each epoch, and how they come into memory."""

import math
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import keras
import numpy as np

_BLOCK = 16 * 2**20  # bytes read at a time; from 32 MB on, memory would be asked of the system anew

Inputs = Mapping[str, np.ndarray]
Change = Callable[[Inputs, np.ndarray, int], tuple[Inputs, np.ndarray]]


@dataclass(frozen=True, eq=False)
class Examples:
    """What a model is trained or judged on.

    Args:
        inputs: Input name to values of shape `(views, images, h, w, c)`, in memory
            or mapped from a file: a branch's features, or the images themselves.
        targets: Probability of each class, shape `(images, num_classes)`, float32.
        weights: What an image counts in the loss, shape `(images,)`, float32.
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


class Block(NamedTuple):
    """Consecutive batches of one size.

    Args:
        inputs: Input name to values of shape `(steps, batch, ...)`.
        targets: Probability of each class, shape `(steps, batch, num_classes)`.
        weights: What an image counts in the loss, shape `(steps, batch)`.
    """

    inputs: Inputs
    targets: np.ndarray
    weights: np.ndarray


def draw_order(
    data: Examples, *, seed: int, epoch: int, chances: np.ndarray | None = None
) -> Order:
    """Shuffles the images and draws a view of each.

    A function of the seed and the epoch alone, on every backend.

    Args:
        data: What to order.
        seed: Of order and views.
        epoch: Counted from 1.
        chances: How likely each image is drawn, shape `(images,)`, of any sum > 0:
            as many images are drawn as there are, some of them more than once.
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


def read_blocks(
    data: Examples,
    order: Order,
    *,
    batch_size: int,
    most_steps: int | None = None,
    change: Change | None = None,
) -> Iterator[Block]:
    """Yields all batches in order, in blocks of at most 16 MB, one read ahead in a thread.

    Memory does not grow with the number of images. All blocks but the last are
    equally long; a last batch that is smaller comes as a block of its own.

    Args:
        data: What to take batches of.
        order: From `draw_order` or `first_views`.
        batch_size: Images in a batch.
        most_steps: Batches in a block; None: as many as 16 MB hold.
        change: Gets a block's inputs `(n, ...)`, targets `(n, num_classes)` and
            number, and returns inputs and targets to take in their place.
    """
    images = len(order.rows)
    rest = images % batch_size
    per_image = sum(_bytes_per_image(values) for values in data.inputs.values())
    steps = max(1, _BLOCK // (batch_size * per_image))
    length = batch_size * min(steps, most_steps or steps)
    spans = [
        slice(start, min(start + length, images - rest))
        for start in range(0, images - rest, length)
    ]
    if rest:
        spans.append(slice(images - rest, images))

    def read(number: int) -> Block:
        rows, views = (part[spans[number]] for part in order)
        inputs: Inputs = {name: _take(v, views, rows) for name, v in data.inputs.items()}
        targets = data.targets[rows]
        if change is not None:
            inputs, targets = change(inputs, targets, number)
        size = min(batch_size, len(rows))
        return Block(
            *keras.tree.map_structure(
                lambda array: array.reshape(-1, size, *array.shape[1:]),
                (inputs, targets, data.weights[rows]),
            )
        )

    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(read, 0)
        for number in range(1, len(spans)):
            block, coming = coming.result(), thread.submit(read, number)
            yield block
        yield coming.result()


def read_maps(values: np.ndarray) -> Iterator[np.ndarray]:
    """Yields each view of each image once, in pieces of at most 16 MB, shape `(n, h, w, c)`."""
    views, images = values.shape[:2]
    length = max(1, _BLOCK // _bytes_per_image(values))
    for view in range(views):
        for start in range(0, images, length):
            yield values[view, start : start + length]


def _take(values: np.ndarray, views: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Returns `values[views, rows]`, three times as fast, from an array without gaps."""
    return values.reshape(-1, *values.shape[2:]).take(views * values.shape[1] + rows, axis=0)


def _bytes_per_image(values: np.ndarray) -> int:
    return math.prod(values.shape[2:]) * values.dtype.itemsize
