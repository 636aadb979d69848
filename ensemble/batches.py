"""Batches of stored features: their order in each epoch, and how they come into memory."""

import math
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

_BLOCK = 64 * 2**20  # bytes read at a time: enough for the disk, little of the memory


@dataclass(frozen=True, eq=False)
class LabelledFeatures:
    """Features with what a training needs beside them.

    Args:
        inputs: Input name to values of shape `(views, images, h, w, c)`, in memory
            or mapped from a file.
        labels: Class numbers, shape `(images,)`.
        weights: What an image counts in the loss, shape `(images,)`.
    """

    inputs: Mapping[str, np.ndarray]
    labels: np.ndarray
    weights: np.ndarray


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
        labels: Class numbers, shape `(steps, batch)`.
        weights: What an image counts in the loss, shape `(steps, batch)`.
    """

    inputs: Mapping[str, np.ndarray]
    labels: np.ndarray
    weights: np.ndarray


def draw_order(data: LabelledFeatures, *, seed: int, epoch: int) -> Order:
    """Shuffles the images and draws a view of each.

    A function of the seed and the epoch alone, on every backend.

    Args:
        data: What to order.
        seed: Of order and views.
        epoch: Counted from 1.
    """
    images = len(data.labels)
    views = next(iter(data.inputs.values())).shape[0]
    generator = np.random.default_rng([seed, epoch])
    rows = generator.permutation(images)
    return Order(rows, generator.integers(views, size=images)[rows])


def first_views(data: LabelledFeatures) -> Order:
    """Returns the images as they are stored, and the first view of each."""
    images = len(data.labels)
    return Order(np.arange(images), np.zeros(images, "int64"))


def read_blocks(data: LabelledFeatures, order: Order, *, batch_size: int) -> Iterator[Block]:
    """Yields all batches in order, in blocks of at most 64 MB, one read ahead in a thread.

    Memory does not grow with the number of images. All blocks but the last are
    equally long; a last batch that is smaller comes as a block of its own.

    Args:
        data: What to take batches of.
        order: From `draw_order` or `first_views`.
        batch_size: Images in a batch.
    """
    images = len(order.rows)
    rest = images % batch_size
    per_image = sum(_bytes_per_image(values) for values in data.inputs.values())
    length = batch_size * max(1, _BLOCK // (batch_size * per_image))
    spans = [
        slice(start, min(start + length, images - rest))
        for start in range(0, images - rest, length)
    ]
    if rest:
        spans.append(slice(images - rest, images))

    def read(span: slice) -> Block:
        rows, views = order.rows[span], order.views[span]
        batches = (-1, min(batch_size, len(rows)))
        return Block(
            inputs={
                name: values[views, rows].reshape(*batches, *values.shape[2:])
                for name, values in data.inputs.items()
            },
            labels=data.labels[rows].reshape(batches),
            weights=data.weights[rows].reshape(batches),
        )

    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(read, spans[0])
        for span in spans[1:]:
            block, coming = coming.result(), thread.submit(read, span)
            yield block
        yield coming.result()


def read_maps(values: np.ndarray) -> Iterator[np.ndarray]:
    """Yields each view of each image once, in pieces of at most 64 MB, shape `(n, h, w, c)`."""
    views, images = values.shape[:2]
    length = max(1, _BLOCK // _bytes_per_image(values))
    for view in range(views):
        for start in range(0, images, length):
            rows = np.arange(start, min(start + length, images))
            yield values[np.full_like(rows, view), rows]


def _bytes_per_image(values: np.ndarray) -> int:
    return math.prod(values.shape[2:]) * values.dtype.itemsize
