"""Answers drawn into photos, and heat maps laid over faces."""

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ensemble.commands.predict.predictor import Prediction
from ensemble.data.decoding import decode_whole

if TYPE_CHECKING:
    from ensemble.commands.predict.explanation import Explanation

SIDE = 224  # pixels of a face under its heat map

_LONGEST = 1600  # pixels of an annotated photo
_QUALITY = 90  # of its JPEG
_FOR, _AGAINST = (213, 94, 0), (0, 114, 178)  # vermilion and blue of Okabe and Ito
_STRENGTH = 0.75  # cover of the heat map where it is strongest
_FAINTEST = 0.01  # nats; a map of less stays pale, for it is rounding
_GAP, _LINE = 12, 20  # pixels


def annotate(source: bytes | np.ndarray, answers: Sequence[Prediction]) -> bytes:
    """Draws boxes and answers into a photo.

    Args:
        source: The photo, as `images.decode` takes it.
        answers: What `Predictor.predict` said about it.

    Returns:
        A JPEG, its longer side at most 1600 pixels.

    Raises:
        ImageError: If the photo cannot be read.
    """
    photo = Image.fromarray(decode_whole(source))
    scale = min(1.0, _LONGEST / max(photo.size))
    if scale < 1:
        photo = photo.resize([max(1, round(side * scale)) for side in photo.size])
    pen = ImageDraw.Draw(photo)
    size = max(12, round(max(photo.size) / 45))
    line = max(2, round(max(photo.size) / 400))
    for answer in answers:
        left, top = 0.0, 0.0
        if answer.box:
            left, top = answer.box.left * scale, answer.box.top * scale
            right = left + answer.box.width * scale
            bottom = top + answer.box.height * scale
            pen.rectangle((left, top, right, bottom), outline=_FOR, width=line)
        _label(photo, pen, *_letter(answer.caption, size), left, top)
    return _encode(photo, "JPEG", quality=_QUALITY)


def draw_explanation(crop: np.ndarray, explanation: "Explanation", caption: str) -> bytes:
    """Draws a face beside its heat maps: of the fused answer, then of each branch.

    Orange parts speak for the class, blue ones against it. All maps have one scale;
    the largest change of the log odds is written below each.

    Args:
        crop: Shape `(size, size, 3)`, uint8, RGB.
        explanation: Of this crop.
        caption: Stands above.

    Returns:
        A PNG.
    """
    maps, scale = _maps(explanation)
    panels = [Image.fromarray(crop).resize((SIDE, SIDE), Image.Resampling.BICUBIC)]
    panels += [overlay(crop, values, scale) for values in maps.values()]
    names = ["photo", *(f"{name}, to {_peak(values):.2g} nats" for name, values in maps.items())]
    width = _GAP + len(panels) * (SIDE + _GAP)
    sheet = Image.new("RGB", (width, SIDE + 2 * _LINE + 3 * _GAP), "white")
    pen = ImageDraw.Draw(sheet)
    caption, letters = _letter(caption, 14)
    pen.text((_GAP, _GAP), caption, "black", letters)
    for number, (panel, name) in enumerate(zip(panels, names, strict=True)):
        left = _GAP + number * (SIDE + _GAP)
        sheet.paste(panel, (left, _GAP + _LINE))
        name, letters = _letter(name, 14)
        pen.text((left, _GAP + _LINE + SIDE + 4), name, "black", letters)
    return _encode(sheet, "PNG")


def draw_maps(crop: np.ndarray, explanation: "Explanation") -> Mapping[str, bytes]:
    """Returns the heat maps over a face as PNG: "fused", then each branch's label."""
    maps, scale = _maps(explanation)
    return {name: _encode(overlay(crop, values, scale), "PNG") for name, values in maps.items()}


def overlay(crop: np.ndarray, values: np.ndarray, scale: float) -> Image.Image:
    """Lays a heat map over a face turned grey, `SIDE` pixels wide and high.

    Args:
        crop: Shape `(size, size, 3)`, uint8, RGB.
        values: Shape `(grid, grid)`.
        scale: The magnitude that gets the full colour, above 0.
    """
    size = (SIDE, SIDE)
    face = Image.fromarray(crop).resize(size, Image.Resampling.BICUBIC).convert("L").convert("RGB")
    smooth = Image.fromarray(values.astype(np.float32)).resize(size, Image.Resampling.BILINEAR)
    strengths = np.clip(np.asarray(smooth) / scale, -1, 1)
    cover = (np.abs(strengths) * _STRENGTH)[..., None]
    colours = np.where(strengths[..., None] > 0, np.array(_FOR), np.array(_AGAINST))
    mixed = np.asarray(face) * (1 - cover) + colours * cover
    return Image.fromarray(np.rint(mixed).astype(np.uint8))


def _maps(explanation: "Explanation") -> tuple[dict[str, np.ndarray], float]:
    """Returns all maps by name, and their common scale."""
    maps = {"fused": explanation.fused, **explanation.branches}
    return maps, max(_FAINTEST, *map(_peak, maps.values()))


def _peak(values: np.ndarray) -> float:
    return float(np.abs(values).max())


def _label(
    photo: Image.Image,
    pen: ImageDraw.ImageDraw,
    text: str,
    letters: ImageFont.FreeTypeFont,
    left: float,
    top: float,
) -> None:
    """Writes on a dark ground above a point, moved to stay inside the photo."""
    _, _, width, height = pen.textbbox((0, 0), text, letters)
    x = min(max(left, 0), max(photo.width - width - 8, 0))
    y = top - height - 8 if top >= height + 8 else top + 2
    pen.rectangle((x, y, x + width + 8, y + height + 6), fill=(34, 34, 34))
    pen.text((x + 4, y + 2), text, "white", letters)


def _encode(image: Image.Image, form: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def _letter(text: str, size: int) -> tuple[str, ImageFont.FreeTypeFont]:
    """Returns a text as a font can show it, and that font; see `plots.figures.choose_font`."""
    from ensemble.plots.figures import choose_font

    path, text = choose_font(text)
    return text, ImageFont.truetype(path, size)
