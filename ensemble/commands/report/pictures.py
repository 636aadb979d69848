"""Pictures within a page: the images that a model was most wrong about."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from configs.errors import UserError
from ensemble.data.decoding import ImageError, decode
from ensemble.runs.recorded_split import recorded_split
from ensemble.runs.run import Run

_LARGEST = 160  # pixels
_QUALITY = 85  # of JPEG


def read_pictures(run: Run, classes: Sequence[str], names: Sequence[str]) -> list[str] | None:
    """Returns validation images of a run, as its model sees them, as addresses of an `img`.

    Args:
        run: The run.
        classes: Its classes, in order.
        names: Of the images.

    Returns:
        An address for each name; None if one of the images is no longer there.
    """
    size = min(run.config.data.image_size, _LARGEST)
    try:
        images = recorded_split(run, "validation", classes).split.images
        return [_address(Image.fromarray(decode(images.read(name), size))) for name in names]
    except (UserError, ImageError, OSError, KeyError):
        return None


def read_picture(path: Path) -> str | None:
    """Returns a PNG file as the address of an `img`, None if it is not there."""
    return _encode(path.read_bytes(), "png") if path.is_file() else None


def _address(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=_QUALITY)
    return _encode(file.getvalue(), "jpeg")


def _encode(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"
