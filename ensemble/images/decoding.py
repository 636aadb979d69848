"""A file or raw pixels become a square RGB array, or the image is refused with a reason."""

import io
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

# 300 MB as RGB, and more than most cameras take. A header that claims more is
# refused before a pixel is decoded: a file of 3 MB can unpack to many gigabytes.
MAX_PIXELS = 100_000_000
_LIMIT = f"at most {MAX_PIXELS:,} are read"

# A large image is first shrunk quickly, to no less than this many times the
# target, so that the slower filter that follows still decides the result.
_QUICK_SHRINK = 2

# Pillow would start Ghostscript or the Windows renderer to draw these.
_DRAWINGS = frozenset({"EPS", "WMF"})

_FLOAT_WHITES = (1, 255, 65535)


class ImageError(Exception):
    """One image that cannot be used; its text is the reason in a few words.

    It ends nothing: the caller records the image with the reason and goes on.
    """


def decode(source: bytes | np.ndarray, size: int) -> np.ndarray:
    """Decodes an image, turns it upright and stretches it to a square.

    The aspect ratio is not kept. Of several frames the first is taken. What is
    transparent becomes white. 16-bit grey is scaled from 0..65535; floats are
    scaled from the smallest of 0..1, 0..255 and 0..65535 that holds them. Colour
    profiles are ignored. Safe to call from several threads.

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
    # Left to itself Pillow loads rare formats on first need, and a second thread
    # that looks meanwhile is told that its file is of no known format.
    Image.init()
    image = Image.open(io.BytesIO(data))
    if image.format in _DRAWINGS:
        raise ImageError(f"{image.format} is a drawing, not an image")
    if image.width * image.height > MAX_PIXELS:
        raise ImageError(f"{image.width} x {image.height} pixels; {_LIMIT}")
    if size is not None:
        # JPEG can be decoded at a half, a quarter or an eighth of its size.
        image.draft(None, (_QUICK_SHRINK * size, _QUICK_SHRINK * size))
    image.load()
    # Pixels beside a damaged EXIF block are good: they are taken as they lie.
    with suppress(Exception):
        ImageOps.exif_transpose(image, in_place=True)
    return image


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
    white = 65535
    if image.mode == "F":
        white = next((white for white in _FLOAT_WHITES if values.max() <= white), white)
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
