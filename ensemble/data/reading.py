"""Images of a split: inspected once, then streamed in batches decoded ahead in threads."""

import hashlib
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

import numpy as np

from configs.errors import DataError
from ensemble.data.decoding import ImageError, decode
from ensemble.data.image_hashes import hash_greys, shrink
from ensemble.data.loading import Split
from ensemble.data.registry import Problem
from ensemble.system.cores import count_cores
from ensemble.system.progress import progress_bar

Item = TypeVar("Item")
Result = TypeVar("Result")

_STRETCH = 64  # images that a thread looks at before another one may: it wakes up to cold caches
_STRETCH_BYTES = 2**19  # of pixels, in the same way
_QUICK = 0.15e-3  # seconds: threads that decode an image in less mostly wait for each other
_PROBED = 9  # images that are decoded to see how long it takes
_AHEAD = 8  # images in work for each thread: enough to hide a slow read, little memory


@dataclass(frozen=True)
class Fingerprint:
    """What distinguishes an image from others.

    Args:
        digest: SHA-256 of its bytes (or pixels).
        pixels: SHA-256 of its pixels at the size at which it was looked at.
        perceptual: Its `duplicates.perceptual_hash`.
        mirrored: That of its mirror image.
    """

    digest: bytes
    pixels: bytes
    perceptual: bytes
    mirrored: bytes


@dataclass(frozen=True)
class Inspection:
    """What reading every image of a split once has shown.

    Args:
        readable: The split without the images that cannot be decoded.
        fingerprints: Those of the readable images, in order.
        problems: The images left out, and why.
    """

    readable: Split
    fingerprints: tuple[Fingerprint, ...]
    problems: list[Problem]

    @property
    def digests(self) -> tuple[bytes, ...]:
        """SHA-256 of each readable image's bytes (or pixels), in order."""
        return tuple(fingerprint.digest for fingerprint in self.fingerprints)

    def select(self, indices: Sequence[int]) -> "Inspection":
        """Returns the inspection of these readable images alone, in the order of `indices`."""
        kept = tuple(self.fingerprints[index] for index in indices)
        return Inspection(self.readable.select(indices), kept, self.problems)


def inspect(split: Split, image_size: int, *, label: str = "Reading images") -> Inspection:
    """Decodes every image once, so that a bad one is known before the long work begins.

    Args:
        split: The images.
        image_size: Height and width in pixels.
        label: Text of the progress bar.
    """

    def look(indices: range) -> list[Fingerprint | Problem]:
        seen: list[tuple[bytes, bytes, np.ndarray] | Problem] = []
        for index in indices:
            name = split.names[index]
            try:
                source = split.images.read(name)
                pixels = decode(source, image_size)
            except (ImageError, OSError) as error:
                seen.append(Problem(name, _reason(error)))
            else:
                seen.append((content_digest(source), content_digest(pixels), shrink(pixels)))
        readable = [item for item in seen if not isinstance(item, Problem)]
        hashes = iter(hash_greys([grey for *_, grey in readable]) if readable else [])
        return [
            item if isinstance(item, Problem) else Fingerprint(*item[:2], *next(hashes))
            for item in seen
        ]

    found: list[Fingerprint | Problem] = []
    with progress_bar(label, len(split)) as bar:
        threads = _suitable_threads(split, image_size)
        stretches = _pieces(range(len(split)), _STRETCH)
        for looks in map_ahead(look, stretches, each=1, threads=threads):
            found += looks
            bar.update(len(looks))
    kept = [index for index, item in enumerate(found) if isinstance(item, Fingerprint)]
    fingerprints = [item for item in found if isinstance(item, Fingerprint)]
    problems = [item for item in found if isinstance(item, Problem)]
    return Inspection(split.select(kept), tuple(fingerprints), problems)


def content_digest(source: bytes | np.ndarray) -> bytes:
    """Returns the SHA-256 of an image file's bytes, or of pixels."""
    return hashlib.sha256(source if isinstance(source, bytes) else source.tobytes()).digest()


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

    def read(indices: range) -> np.ndarray:
        return np.stack([read_image(split, index, image_size) for index in indices])

    batches = max(1, _STRETCH_BYTES // (batch_size * image_size**2 * 3))
    indices = range(len(split))
    stretches = _pieces(indices, batches * batch_size)
    ahead = map_ahead(read, stretches, each=1, threads=_suitable_threads(split, image_size))
    for stretch, images in zip(stretches, ahead, strict=True):
        for rows in _pieces(stretch, batch_size):
            yield slice(rows.start, rows.stop), images[rows.start - stretch.start :][: len(rows)]


def map_ahead(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    each: int = _AHEAD,
    threads: int | None = None,
) -> Iterator[Result]:
    """Maps in threads, in order, with `each` items in work for a thread and one more waiting.

    Args:
        work: From an item to what comes of it.
        items: Taken as they are needed.
        each: See above.
        threads: How many; None: one for each core.
    """
    threads = threads or count_cores()
    with ThreadPoolExecutor(threads) as pool:
        pending: deque[Future[Result]] = deque()
        for item in items:
            pending.append(pool.submit(work, item))
            if len(pending) > threads * each:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _suitable_threads(split: Split, image_size: int) -> int:
    """Returns how many threads decode a split's images fastest: one if they are small."""
    times = []
    for index in np.linspace(0, len(split) - 1, min(_PROBED, len(split))).astype(int):
        started = time.perf_counter()
        with suppress(ImageError, OSError):
            decode(split.images.read(split.names[index]), image_size)
        times.append(time.perf_counter() - started)
    return count_cores() if times and median(times) > _QUICK else 1


def _pieces(indices: range, size: int) -> list[range]:
    return [indices[start : start + size] for start in range(0, len(indices), size)]


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).rstrip(".")
