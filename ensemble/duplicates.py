"""Images that show nearly the same, found by a perceptual hash.

Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions, 2010.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from configs.errors import ConfigError
from ensemble.images import decode

_SIDE = 64  # pixels that the hash looks at, in height and width
_CHUNK = 2**18  # hashes compared at a time


def check_hashing() -> None:
    """Checks that the library of perceptual hashes is installed.

    Raises:
        ConfigError: If it is not.
    """
    try:
        import imagehash  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"Near-duplicates are found by ImageHash, which is not installed ({error}). "
            "Install it with `pip install ImageHash`."
        ) from error


def perceptual_hash(source: bytes | np.ndarray) -> bytes:
    """Returns the DCT hash of an image: 32 bytes, few of whose 256 bits differ in a near copy.

    Args:
        source: As `images.decode` takes it.

    Raises:
        ImageError: If the image cannot be read.
    """
    import imagehash
    from PIL import Image

    image = Image.fromarray(decode(source, _SIDE))
    return np.packbits(imagehash.phash(image, hash_size=16).hash).tobytes()


def near_duplicates(hashes: Sequence[bytes], within: int) -> list[tuple[int, int]]:
    """Returns all pairs `(i, j)`, `i < j`, of hashes that differ in few bits.

    Args:
        hashes: Of 32 bytes each.
        within: The most bits that differ, 0..256.
    """
    words = np.asfortranarray(np.frombuffer(b"".join(hashes), np.uint64).reshape(-1, 4))
    step = max(1, _CHUNK // max(1, len(words)))
    pairs: list[tuple[int, int]] = []
    for start in range(0, len(words), step):
        rows, others = words[start : start + step], words[start:]
        distances = np.zeros((len(rows), len(others)), np.uint16)
        for word in range(words.shape[1]):
            distances += np.bitwise_count(rows[:, word, None] ^ others[None, :, word])
        first, second = np.nonzero(distances <= within)
        later = first < second
        pairs += zip((first[later] + start).tolist(), (second[later] + start).tolist(), strict=True)
    return pairs


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
