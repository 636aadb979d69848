"""Pictures of predictions: annotated photos, and heat maps laid over faces."""

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ensemble.commands.predict.predictor import Faces, Prediction, Predictor
from ensemble.data.decoding import ImageError, decode_whole
from ensemble.data.formats import image_suffixes
from ensemble.runs.run import Run

if TYPE_CHECKING:
    from ensemble.commands.predict.explanation import Explanation

SIDE = 224  # pixels of a face under its heat map

_MAX_SIDE = 1600  # pixels of an annotated photo
_QUALITY = 90  # of its JPEG
_MAX_NAME = 60  # characters of a photo's name in a file's name
_FOR, _AGAINST = (213, 94, 0), (0, 114, 178)  # vermilion and blue of Okabe and Ito
_OPACITY = 0.75  # of the heat map where it is strongest
_MIN_SCALE = 0.01  # nats; weaker maps are rounding and stay pale
_GAP, _LINE, _TEXT = 12, 20, 14  # pixels


class PictureFolder:
    """A folder of pictures, numbered in the order of the photos.

    Args:
        folder: Where `pictures/` and `heat_maps/` are written, each file whole or not at all.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = Run(folder)
        self._number = 0

    def add(self, faces: Faces, predictions: list[Prediction], predictor: Predictor | None) -> None:
        """Writes `pictures/00001-NAME.jpg` and `heat_maps/00001-NAME-face1.png`.

        Args:
            faces: Faces of one photo; an unreadable one has no picture.
            predictions: Their predictions.
            predictor: Explains each prediction; None: there are no heat maps.

        Raises:
            RunError: If a file cannot be written.
        """
        self._number += 1
        source = faces.source
        if faces.missing == "unreadable" or isinstance(source, ImageError):
            return
        title = f"{self._number:05}-{_file_name(faces.name)}"
        data = source.read_bytes() if isinstance(source, Path) else source
        self._folder.write(f"pictures/{title}.jpg", annotate(data, predictions))
        if predictor is None or faces.missing:
            return
        for number, (crop, prediction) in enumerate(zip(faces.crops, predictions, strict=True), 1):
            sheet = draw_explanation(crop, predictor.explain(crop), prediction.caption)
            self._folder.write(f"heat_maps/{title}-face{number}.png", sheet)


def annotate(source: bytes | np.ndarray, predictions: Sequence[Prediction]) -> bytes:
    """Returns a photo with boxes and predictions as JPEG, its longer side at most 1600 pixels.

    Raises:
        ImageError: If the photo is unreadable.
    """
    photo = Image.fromarray(decode_whole(source))
    scale = min(1.0, _MAX_SIDE / max(photo.size))
    if scale < 1:
        photo = photo.resize([max(1, round(side * scale)) for side in photo.size])
    pen = ImageDraw.Draw(photo)
    size = max(12, round(max(photo.size) / 45))
    line = max(2, round(max(photo.size) / 400))
    for prediction in predictions:
        left, top = 0.0, 0.0
        if prediction.box:
            left, top, width, height = (scale * value for value in prediction.box)
            pen.rectangle((left, top, left + width, top + height), outline=_FOR, width=line)
        text, font = _choose_font(prediction.caption, size)
        _, _, width, height = pen.textbbox((0, 0), text, font)
        x = min(max(left, 0), max(photo.width - width - 8, 0))  # inside the photo
        y = top - height - 8 if top >= height + 8 else top + 2
        pen.rectangle((x, y, x + width + 8, y + height + 6), fill=(34, 34, 34))
        pen.text((x + 4, y + 2), text, "white", font)
    return _encode(photo, "JPEG", quality=_QUALITY)


def draw_explanation(crop: np.ndarray, explanation: "Explanation", caption: str) -> bytes:
    """Returns a face beside its heat maps, fused and of each branch, as PNG.

    Orange parts speak for the class, blue ones against it. All maps have one scale;
    the largest change of the log odds is written below each.

    Args:
        crop: Shape `(size, size, 3)`, uint8, RGB.
        explanation: Explanation of this crop.
        caption: Text above the pictures.
    """
    maps = {"fused": explanation.fused, **explanation.branches}
    panels = {"photo": Image.fromarray(crop).resize((SIDE, SIDE), Image.Resampling.BICUBIC)}
    for name, panel in _overlays(crop, explanation).items():
        panels[f"{name}, to {np.abs(maps[name]).max():.2g} nats"] = panel
    width = _GAP + len(panels) * (SIDE + _GAP)
    sheet = Image.new("RGB", (width, SIDE + 2 * _LINE + 3 * _GAP), "white")
    pen = ImageDraw.Draw(sheet)

    def write(x: int, y: int, text: str) -> None:
        text, font = _choose_font(text, _TEXT)
        pen.text((x, y), text, "black", font)

    write(_GAP, _GAP, caption)
    for number, (name, panel) in enumerate(panels.items()):
        left = _GAP + number * (SIDE + _GAP)
        sheet.paste(panel, (left, _GAP + _LINE))
        write(left, _GAP + _LINE + SIDE + 4, name)
    return _encode(sheet, "PNG")


def draw_maps(crop: np.ndarray, explanation: "Explanation") -> dict[str, bytes]:
    """Returns the heat maps over a face as PNG: "fused", then each branch's label."""
    overlays = _overlays(crop, explanation)
    return {name: _encode(picture, "PNG") for name, picture in overlays.items()}


def overlay(crop: np.ndarray, values: np.ndarray, scale: float) -> Image.Image:
    """Lays a heat map over a face in grey, `SIDE` pixels wide and high.

    Args:
        crop: Shape `(size, size, 3)`, uint8, RGB.
        values: Shape `(grid, grid)`.
        scale: Magnitude of the full colour, above 0.
    """
    size = (SIDE, SIDE)
    face = Image.fromarray(crop).resize(size, Image.Resampling.BICUBIC).convert("L").convert("RGB")
    smooth = Image.fromarray(values.astype(np.float32)).resize(size, Image.Resampling.BILINEAR)
    strengths = np.clip(np.asarray(smooth) / scale, -1, 1)[..., None]
    opacity = np.abs(strengths) * _OPACITY
    colours = np.where(strengths > 0, np.array(_FOR), np.array(_AGAINST))
    mixed = np.asarray(face) * (1 - opacity) + colours * opacity
    return Image.fromarray(np.rint(mixed).astype(np.uint8))


def _overlays(crop: np.ndarray, explanation: "Explanation") -> dict[str, Image.Image]:
    """Returns all maps over a face, in one scale, by name."""
    maps = {"fused": explanation.fused, **explanation.branches}
    scale = max(_MIN_SCALE, *(float(np.abs(values).max()) for values in maps.values()))
    return {name: overlay(crop, values, scale) for name, values in maps.items()}


def _encode(image: Image.Image, form: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def _choose_font(text: str, size: int) -> tuple[str, ImageFont.FreeTypeFont]:
    """Returns a text as a font can show it, and that font; see `plots.figures.choose_font`."""
    from ensemble.plots.figures import choose_font

    path, text = choose_font(text)
    return text, ImageFont.truetype(path, size)


def _file_name(name: str) -> str:
    """Returns a photo's name without the characters that are special to file systems."""
    path = Path(name)
    kept = path.stem if path.suffix.lower() in image_suffixes() else path.name
    return re.sub(r"[^\w.#-]+", "_", kept)[-_MAX_NAME:].strip(".") or "photo"
