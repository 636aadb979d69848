"""File types of images: one list for every command, taken from Pillow."""

from contextlib import suppress
from functools import cache

from PIL import Image

# Pillow would start Ghostscript or the Windows renderer to draw these.
DRAWINGS = frozenset({"EPS", "WMF"})

# Pillow recognises these, but has no decoder for their content.
_UNREADABLE = frozenset({"BUFR", "GRIB", "HDF5", "MPEG"})

# Listed with or without the decoder, so that such a file is reported and never skipped.
_HEIF_SUFFIXES = frozenset({".heic", ".heics", ".heif", ".heifs", ".hif"})


@cache
def image_suffixes() -> frozenset[str]:
    """Returns the file name endings that count as images, in lower case, such as ".jpg"."""
    register_formats()
    readable = Image.OPEN.keys() - DRAWINGS - _UNREADABLE
    suffixes = Image.registered_extensions().items()
    return _HEIF_SUFFIXES.union(suffix for suffix, name in suffixes if name in readable)


@cache
def register_formats() -> None:
    """Loads all decoders of Pillow, and that of HEIC where it is installed.

    Left to itself Pillow loads rare formats on first need, and a second thread
    that opens a file meanwhile finds no decoder for it.
    """
    Image.init()
    with suppress(ImportError):
        from pillow_heif import register_heif_opener

        register_heif_opener()


def lacks_heif_decoder(data: bytes) -> bool:
    """Returns whether the bytes are a HEIC or HEIF file and its decoder is not installed."""
    is_heif = data[4:8] == b"ftyp" and data[8:12] in (b"heic", b"heix", b"heif", b"mif1", b"msf1")
    return is_heif and "HEIF" not in Image.OPEN
