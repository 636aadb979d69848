"""Images of a split: inspected once, then streamed in batches decoded ahead in threads."""

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from configs.errors import DataError
from ensemble.datasets.loading import Split
from ensemble.datasets.registry import Problem
from ensemble.images import ImageError, decode
from ensemble.progress import progress_bar

Item = TypeVar("Item")
Result = TypeVar("Result")

_AHEAD = 8  # images in work for each thread: enough to hide a slow read, little memory


@dataclass(frozen=True)
class Inspection:
    """What reading every image of a split once has shown.

    Args:
        readable: The split without the images that cannot be decoded.
        digests: SHA-256 of each readable image's bytes (or pixels), in order.
        problems: The images left out, and why.
    """

    readable: Split
    digests: tuple[bytes, ...]
    problems: list[Problem]


def inspect(split: Split, image_size: int, *, label: str = "Reading images") -> Inspection:
    """Decodes every image once, so that a bad one is known before the long work begins.

    Args:
        split: The images.
        image_size: Height and width in pixels.
        label: Text of the progress bar.
    """

    def look(index: int) -> bytes | Problem:
        name = split.names[index]
        try:
            source = split.images.read(name)
            decode(source, image_size)
        except (ImageError, OSError) as error:
            return Problem(name, _reason(error))
        content = source if isinstance(source, bytes) else source.tobytes()
        return hashlib.sha256(content).digest()

    found: list[bytes | Problem] = []
    with progress_bar(label, len(split)) as bar:
        for result in map_ahead(look, range(len(split))):
            found.append(result)
            bar.update()
    kept = [index for index, result in enumerate(found) if isinstance(result, bytes)]
    return Inspection(
        readable=split.select(kept),
        digests=tuple(result for result in found if isinstance(result, bytes)),
        problems=[result for result in found if isinstance(result, Problem)],
    )


def read_image(split: Split, index: int, image_size: int) -> np.ndarray:
    """Returns one image of a split, uint8, shape `(image_size, image_size, 3)`.

    Raises:
        DataError: If it can no longer be read.
    """
    name = split.names[index]
    try:
        return decode(split.images.read(name), image_size)
    except (ImageError, OSError) as error:
        raise DataError(f"{name} can no longer be read ({_reason(error)}).") from error


def stream(split: Split, image_size: int, *, batch_size: int) -> Iterator[tuple[slice, np.ndarray]]:
    """Yields a split's images in order, in batches, decoded ahead.

    Memory does not grow with the number of images.

    Yields:
        The rows of the batch, and its images, uint8, shape
        `(batch, image_size, image_size, 3)`, RGB of 0..255.
    """

    def read(rows: slice) -> tuple[slice, np.ndarray]:
        indices = range(len(split))[rows]
        return rows, np.stack([read_image(split, index, image_size) for index in indices])

    starts = range(0, len(split), batch_size)
    rows = (slice(start, min(start + batch_size, len(split))) for start in starts)
    yield from map_ahead(read, rows, each=1)


def map_ahead(
    work: Callable[[Item], Result], items: Iterable[Item], *, each: int = _AHEAD
) -> Iterator[Result]:
    """Maps in threads, in order, with `each` items in work for a thread and one more waiting."""
    threads = os.cpu_count() or 1
    with ThreadPoolExecutor(threads) as pool:
        pending: deque[Future[Result]] = deque()
        for item in items:
            pending.append(pool.submit(work, item))
            if len(pending) > threads * each:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).rstrip(".")
