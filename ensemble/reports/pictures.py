"""Pictures within a page: the images that a model was most wrong about."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from configs.errors import UserError
from configs.schema import DataConfig
from ensemble.datasets.loading import load_labelled, locate
from ensemble.faces.store import face_images
from ensemble.images.decoding import ImageError, decode

_LARGEST = 160  # pixels
_QUALITY = 85  # of JPEG


def read_pictures(config: DataConfig, names: Sequence[str]) -> list[str] | None:
    """Returns images of a run's data, at the size that the model sees, as addresses of an `img`.

    Args:
        config: Where the data is.
        names: Of the images.

    Returns:
        An address for each name; None if the data is no longer there.
    """
    size = min(config.image_size, _LARGEST)
    try:
        labelled = load_labelled(
            locate(config),
            source=config.source,
            classes=config.classes,
            merge=config.merge,
        )
        images = face_images(labelled.rows.images, config.faces)
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
