"""Images that show nearly the same, found by a perceptual hash.

Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions, 2010.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from scipy.fft import dct

from ensemble.data.decoding import decode_grey

_SIDE = 64  # pixels that the hash looks at, in height and width
_FREQUENCIES = 16  # the lowest ones, in each direction
_CHUNK = 2**18  # hashes compared at a time

_COSINES = dct(np.eye(_SIDE), axis=0)[:_FREQUENCIES]
_MIRROR = np.where(np.arange(_FREQUENCIES) % 2, -1.0, 1.0)  # odd cosines change their sign


def perceptual_hash(source: bytes | np.ndarray) -> bytes:
    """Returns the DCT hash of an image: 32 bytes, few of whose 256 bits differ in a near copy.

    Args:
        source: As `images.decode` takes it.

    Raises:
        ImageError: If the image cannot be read.
    """
    return hash_greys([shrink(source)])[0][0]


def shrink(source: bytes | np.ndarray) -> np.ndarray:
    """Returns what the hash of an image looks at: grey values, uint8, shape `(64, 64)`.

    Args:
        source: As `images.decode` takes it.

    Raises:
        ImageError: If the image cannot be read.
    """
    return decode_grey(source, _SIDE)


def hash_greys(greys: Sequence[np.ndarray]) -> list[tuple[bytes, bytes]]:
    """Returns the hashes of images and of their mirror images; see `perceptual_hash`.

    Args:
        greys: From `shrink`; many at a time are quicker than one by one.
    """
    spectra = _COSINES @ np.stack(greys).astype(float) @ _COSINES.T
    return list(zip(_threshold(spectra), _threshold(spectra * _MIRROR), strict=True))


def _threshold(spectra: np.ndarray) -> list[bytes]:
    """Returns a bit for each number of a spectrum: whether it is above their median."""
    numbers = spectra.reshape(len(spectra), -1)
    middle = numbers.shape[1] // 2
    halves = np.partition(numbers, (middle - 1, middle), axis=1)[:, middle - 1 : middle + 1]
    bits = np.packbits(numbers > halves.mean(axis=1, keepdims=True), axis=1)
    return [row.tobytes() for row in bits]


def near_duplicates(
    hashes: Sequence[bytes], within: int, others: Sequence[bytes] | None = None
) -> list[tuple[int, int]]:
    """Returns all pairs of hashes that differ in few bits.

    Args:
        hashes: Of 32 bytes each.
        within: The most bits that differ, 0..256.
        others: Hashes to pair them with. None: each other.

    Returns:
        `(i, j)`, places in `hashes` and in `others`; within `hashes` alone, `i < j`.
    """
    words = _words(hashes)
    partners = words if others is None else _words(others)
    step = max(1, _CHUNK // max(1, len(partners)))
    pairs: list[tuple[int, int]] = []
    for start in range(0, len(words), step):
        rows = words[start : start + step]
        distances = np.zeros((len(rows), len(partners)), np.uint16)
        for word in range(words.shape[1]):
            distances += np.bitwise_count(rows[:, word, None] ^ partners[None, :, word])
        first, second = np.nonzero(distances <= within)
        first += start
        kept = slice(None) if others is not None else first < second
        pairs += zip(first[kept].tolist(), second[kept].tolist(), strict=True)
    return pairs


def _words(hashes: Sequence[bytes]) -> np.ndarray:
    return np.asfortranarray(np.frombuffer(b"".join(hashes), np.uint64).reshape(-1, 4))


def join_pairs(count: int, pairs: Iterable[tuple[int, int]]) -> list[int]:
    """Returns the group of each of `count` things, of which pairs belong together.

    A group is called by the smallest of its members; a thing in no pair is its own.
    """
    parents = list(range(count))

    def find(thing: int) -> int:
        while parents[thing] != thing:
            parents[thing] = thing = parents[parents[thing]]
        return thing

    for first, second in pairs:
        low, high = sorted((find(first), find(second)))
        parents[high] = low
    return [find(thing) for thing in range(count)]
