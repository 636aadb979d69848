"""A file or raw pixels become a square RGB array, or the image is refused with a reason."""

import io
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from ensemble.data.formats import DRAWINGS, lacks_heif_decoder, register_formats

# 300 MB as RGB, and more than most cameras take. A header that claims more is
# refused before a pixel is decoded: a file of 3 MB can unpack to many gigabytes.
MAX_PIXELS = 100_000_000
_LIMIT = f"at most {MAX_PIXELS:,} are read"

# A large image is first shrunk quickly, to no less than this many times the
# target, so that the slower filter that follows still decides the result.
_QUICK_SHRINK = 2

_PNG = b"\x89PNG\r\n\x1a\n"
_TEXT_CHUNKS = frozenset({b"tEXt", b"zTXt", b"iTXt", b"iCCP"})

_INTEGER_WHITES = (255, 65535)
_FLOAT_WHITES = (1, 255, 65535)

# Of 16-bit colours Pillow keeps the high bytes; read in the other byte order, it keeps the low.
_SWAPPED = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
_LOW_BYTES = {
    f"{mode};16{order}": f"{mode};16{swapped}"
    for mode in ("RGB", "RGBA", "RGBa", "RGBX", "CMYK")
    for order, swapped in _SWAPPED.items()
}


class ImageError(Exception):
    """One image that cannot be used; its text is the reason in a few words.

    It ends nothing: the caller records the image with the reason and goes on.
    """


def decode(source: bytes | np.ndarray, size: int) -> np.ndarray:
    """Decodes an image, turns it upright and stretches it to a square.

    The aspect ratio is not kept. Of several frames the first is taken. What is
    transparent becomes white. Values of more than 8 bits are scaled to 0..255 from
    the smallest range that holds all of the image: 0..255 or 0..65535 for integers,
    and 0..1 as well for floats. Colour profiles are ignored. Safe to call from
    several threads.

    Args:
        source: The bytes of a file in any raster format that Pillow reads, or
            pixels of shape `(height, width)`, `(height, width, 1)` or
            `(height, width, 3)`, uint8, RGB.
        size: Height and width of the result in pixels.

    Returns:
        A new uint8 array of shape `(size, size, 3)`, RGB, 0..255.

    Raises:
        ImageError: If the image is empty, damaged, cut short, of more than
            `MAX_PIXELS` pixels or no image at all.
    """
    with _refusing():
        return np.array(_square(source, size))


def decode_grey(source: bytes | np.ndarray, size: int) -> np.ndarray:
    """Decodes the brightness of an image; otherwise as `decode`.

    Returns:
        A new uint8 array of shape `(size, size)`, 0..255.

    Raises:
        ImageError: As `decode`.
    """
    with _refusing():
        return np.array(_square(source, size).convert("L"))


def decode_whole(source: bytes | np.ndarray) -> np.ndarray:
    """Decodes an image in its own size and turns it upright; otherwise as `decode`.

    Returns:
        A uint8 array of shape `(height, width, 3)`, RGB, 0..255.

    Raises:
        ImageError: As `decode`.
    """
    with _refusing():
        image = _wrap(source) if isinstance(source, np.ndarray) else _load(source)
        return np.array(_to_rgb(image))


def _square(source: bytes | np.ndarray, size: int) -> Image.Image:
    image = _wrap(source) if isinstance(source, np.ndarray) else _load(source, size)
    # Bilinear, widened by Pillow to the scale, averages what it shrinks and,
    # unlike sharper filters, leaves no bright or dark rims along edges.
    return _to_rgb(image).resize(
        (size, size), Image.Resampling.BILINEAR, reducing_gap=float(_QUICK_SHRINK)
    )


def _wrap(pixels: np.ndarray) -> Image.Image:
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    shape_is_right = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)
    if not shape_is_right or pixels.dtype != np.uint8 or pixels.size == 0:
        raise ImageError(f"pixels of shape {pixels.shape} and type {pixels.dtype}")
    return Image.fromarray(pixels)


def _load(data: bytes, size: int | None = None) -> Image.Image:
    """Returns the first frame, upright and in the file's own mode, no smaller than `size`."""
    if not data:
        raise ImageError("the file is empty")
    register_formats()
    try:
        image = _open(data, size)
    except (OSError, SyntaxError, ValueError) as error:
        if lacks_heif_decoder(data):
            raise ImageError(
                "HEIC, which needs `pip install 'multibranch-ensemble[heic]'`"
            ) from error
        bare = _drop_text(data)
        if bare == data:
            raise
        image = _open(bare, size)
    # Pixels beside a damaged EXIF block are good: they are taken as they lie.
    with suppress(Exception):
        ImageOps.exif_transpose(image, in_place=True)
    return image


def _open(data: bytes, size: int | None) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    if image.format in DRAWINGS:
        raise ImageError(f"{image.format} is a drawing, not an image")
    if image.width * image.height > MAX_PIXELS:
        raise ImageError(f"{image.width} x {image.height} pixels; {_LIMIT}")
    if size is not None:
        # JPEG can be decoded at a half, a quarter or an eighth of its size.
        image.draft(None, (_QUICK_SHRINK * size, _QUICK_SHRINK * size))
    _read_16_bit_ppm_as_raw(image)
    low_bytes = _low_byte_tiles(image)
    grey_alpha = [tile.args for tile in getattr(image, "tile", ())] == ["LA;16B"]
    image.load()
    if low_bytes and _is_zero(image):
        image = Image.open(io.BytesIO(data))
        image.tile = low_bytes
        image.load()
    elif grey_alpha and _is_zero(image):
        samples = Image.open(io.BytesIO(_as_four_bytes(data)))
        image.paste(Image.merge("LA", (samples.getchannel("G"), samples.getchannel("A"))))
    return image


def _read_16_bit_ppm_as_raw(image: ImageFile.ImageFile) -> None:
    """Makes Pillow keep the high bytes of a binary PPM, as of other 16-bit colours."""
    if tiles := getattr(image, "tile", ()):
        tile = tiles[0]
        if tile.codec_name == "ppm" and tile.args == ("RGB", 65535):
            image.tile = [tile._replace(codec_name="raw", args=("RGB;16B", 0, 1))]


def _as_four_bytes(png: bytes) -> bytes:
    """Returns a PNG of 16-bit grey and alpha as one of RGBA: high and low byte of each."""
    header = png[12:24] + bytes([8, 6]) + png[26:29]
    return png[:12] + header + zlib.crc32(header).to_bytes(4, "big") + png[33:]


def _drop_text(data: bytes) -> bytes:
    """Returns a PNG without its texts and colour profile, and any other file as it is.

    Pillow refuses the whole image if one of these is damaged or unpacks to more than 1 MiB.
    """
    if not data.startswith(_PNG):
        return data
    kept, place = [_PNG], len(_PNG)
    while place < len(data):
        end = place + 12 + int.from_bytes(data[place : place + 4])
        if data[place + 4 : place + 8] not in _TEXT_CHUNKS:
            kept.append(data[place:end])
        place = end
    return b"".join(kept)


def _low_byte_tiles(image: Image.Image) -> list[Any]:
    """Returns what makes Pillow read the low bytes of 16-bit colours; empty for other images."""
    tiles = []
    for tile in getattr(image, "tile", ()):
        raw, *rest = (tile.args,) if isinstance(tile.args, str) else tile.args or ("",)
        if raw not in _LOW_BYTES:
            return []
        raw = _LOW_BYTES[raw]
        tiles.append(tile._replace(args=(raw, *rest) if rest else raw))
    return tiles


def _is_zero(image: Image.Image) -> bool:
    """Returns whether all colours of an image are 0, whatever its transparency."""
    colours = (image.getchannel(band) for band in image.getbands() if band != "A")
    return all(colour.getbbox() is None for colour in colours)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        image = _to_8_bit(image)
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    paper = Image.new("RGBA", layer.size, "white")
    return Image.alpha_composite(paper, layer).convert("RGB")


def _to_8_bit(image: Image.Image) -> Image.Image:
    """Scales 16-bit, 32-bit and float grey to 0..255, where Pillow would clip."""
    values = np.nan_to_num(np.asarray(image, dtype=np.float32), posinf=0, neginf=0)
    whites = _FLOAT_WHITES if image.mode == "F" else _INTEGER_WHITES
    white = next((white for white in whites if values.max() <= white), whites[-1])
    scaled = np.rint(np.clip(values * (255 / white), 0, 255))
    return Image.fromarray(scaled.astype(np.uint8))


@contextmanager
def _refusing() -> Iterator[None]:
    """Turns every failure into an ImageError: a damaged file can make a decoder raise anything."""
    try:
        yield
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError("not an image") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"too many pixels; {_LIMIT}") from error
    except MemoryError as error:
        raise ImageError("more pixels than there is memory for") from error
    except Exception as error:
        if isinstance(error, EOFError) or "truncated" in str(error).lower():
            raise ImageError("truncated") from error
        raise ImageError(f"damaged ({error or type(error).__name__})") from error
