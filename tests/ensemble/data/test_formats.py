"""One list of image types for all commands, and each type on it can be decoded."""

import io

import numpy as np
import pytest
from PIL import Image

from ensemble.data.decoding import ImageError, decode
from ensemble.data.formats import image_suffixes

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(300)


def test_the_list_holds_what_pillow_reads_and_only_images():
    wanted = {".jpg", ".jfif", ".jpe", ".png", ".avif", ".jp2", ".tga", ".heic", ".heif", ".webp"}
    assert wanted <= image_suffixes()
    others = {".pdf", ".eps", ".ps", ".wmf", ".mpg", ".mpeg", ".h5", ".grib", ".mp4", ".csv", ""}
    assert not others & image_suffixes()


@pytest.mark.parametrize("suffix", [".jfif", ".jpe", ".avif", ".jp2", ".tga", ".heic"])
def test_an_image_of_each_type_is_decoded(suffix):
    if suffix == ".heic":
        pytest.importorskip("pillow_heif")
    image_suffixes()
    file = io.BytesIO()
    kind = Image.registered_extensions()[suffix]
    Image.new("RGB", (64, 64), (230, 120, 40)).save(file, kind)
    pixels = decode(file.getvalue(), 16)
    assert np.abs(pixels.astype(int) - (230, 120, 40)).max() <= 6


def test_heic_without_its_decoder_names_the_remedy(monkeypatch):
    image_suffixes()
    monkeypatch.delitem(Image.OPEN, "HEIF", raising=False)
    monkeypatch.setattr(Image, "ID", [name for name in Image.ID if name != "HEIF"])
    with pytest.raises(ImageError, match=r"multibranch-ensemble\[heic\]"):
        decode(HEIC, 16)


def test_a_damaged_heic_is_refused():
    pytest.importorskip("pillow_heif")
    with pytest.raises(ImageError, match=r"not an image|damaged"):
        decode(HEIC, 16)
