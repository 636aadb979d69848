"""Laws of near-duplicates: a copy is near, another picture is far, groups are whole."""

import io

import numpy as np
import pytest
from PIL import Image
from scipy.fft import dctn

from ensemble.data.image_hashes import (
    hash_greys,
    join_pairs,
    near_duplicates,
    perceptual_hash,
    shrink,
)

NEAR = 20  # bits


def picture(seed, size=96):
    """A picture with detail at several scales, as photos have, that no other seed gives."""
    generator = np.random.default_rng(seed)
    layers = []
    for cells in (4, 8, 16, 32):
        cells = generator.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
        layer = Image.fromarray(cells).resize((size, size), Image.Resampling.BICUBIC)
        layers.append(np.asarray(layer, float))
    return Image.fromarray(np.uint8(np.average(layers, axis=0, weights=(4, 3, 2, 2))))


def jpeg(image, quality=60):
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()


def bits(first, second):
    return sum((a ^ b).bit_count() for a, b in zip(first, second, strict=True))


def test_a_copy_is_near_and_another_picture_is_far():
    hashes = {seed: perceptual_hash(np.array(picture(seed))) for seed in range(6)}

    for seed, known in hashes.items():
        image = picture(seed)
        bright = image.point(lambda value: min(255, round(1.1 * value)))
        for copy in (jpeg(image), jpeg(image.resize((50, 50))), jpeg(bright, 90)):
            assert bits(known, perceptual_hash(copy)) <= NEAR
        others = [bits(known, hashes[other]) for other in hashes if other != seed]
        assert min(others) > 2 * NEAR


def test_the_hash_is_whether_low_frequencies_are_above_their_median():
    pixels = np.array(picture(1, size=64))
    for source, found in zip(
        (pixels, pixels[:, ::-1]), hash_greys([shrink(pixels)])[0], strict=True
    ):
        grey = np.asarray(Image.fromarray(source).convert("L"), float)
        low = dctn(grey)[:16, :16]
        np.testing.assert_array_equal(
            np.unpackbits(np.frombuffer(found, np.uint8)).reshape(16, 16), low > np.median(low)
        )


@pytest.mark.parametrize("chunk", [1, 64, 2**22])
def test_pairs_are_those_that_counting_bits_finds(chunk, monkeypatch):
    monkeypatch.setattr("ensemble.data.image_hashes._CHUNK", chunk)
    generator = np.random.default_rng(3)
    hashes = [generator.bytes(32) for _ in range(20)]
    for source, copies in ((2, (0, 1, 3)), (5, (19, 20))):
        for flips in copies:
            changed = bytearray(hashes[source])
            for place in generator.permutation(256)[:flips]:
                changed[place // 8] ^= 1 << (place % 8)
            hashes.append(bytes(changed))

    for within in (0, 2, 19, 20):
        expected = [
            (i, j)
            for i in range(len(hashes))
            for j in range(i + 1, len(hashes))
            if bits(hashes[i], hashes[j]) <= within
        ]
        assert expected
        assert sorted(near_duplicates(hashes, within)) == expected
        across = near_duplicates(hashes[:9], within, hashes[9:])
        assert sorted(across) == [(i, j - 9) for i, j in expected if i < 9 <= j]


def test_no_hashes_make_no_pairs():
    assert near_duplicates([], 20) == []


def test_pairs_join_to_groups_named_by_their_first():
    assert join_pairs(7, [(5, 6), (1, 3), (3, 5)]) == [0, 1, 2, 1, 4, 1, 1]
    assert join_pairs(3, []) == [0, 1, 2]
