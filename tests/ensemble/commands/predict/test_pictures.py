import io

import numpy as np
import pytest
from PIL import Image

from ensemble.commands.predict.explanation import Explanation
from ensemble.commands.predict.pictures import SIDE, annotate, draw_maps, overlay
from ensemble.commands.predict.predictor import Prediction
from ensemble.faces.registry import Box
from ensemble.plots import figures

CROP = np.full((16, 16, 3), 120, np.uint8)


def answer(box: Box | None, label: str = "happy") -> Prediction:
    return Prediction("a", "predicted", label, 0.9, {label: 0.9, "sad": 0.1}, box)


def read(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def test_a_box_is_drawn_where_the_face_is_in_a_photo_made_smaller():
    photo = np.full((1000, 3200, 3), 200, np.uint8)

    drawn = read(annotate(photo, [answer(Box(1600, 400, 200, 200))]))

    assert drawn.shape == (500, 1600, 3)
    changed = np.abs(drawn - 200).max(axis=2) > 60
    rows, columns = np.nonzero(changed[200:])  # below the answer, which stands above the box
    assert (rows.max() + 200, columns.min(), columns.max()) == pytest.approx((300, 800, 900), abs=4)
    assert not changed[220:280, 820:880].any()  # the face itself is left alone


@pytest.mark.parametrize("box", [None, Box(0, 0, 60, 40), Box(30, 1, 30, 30)])
def test_an_answer_stays_readable_inside_a_small_photo(box):
    drawn = read(annotate(np.full((40, 60, 3), 200, np.uint8), [answer(box, "désgoût " * 9)]))

    assert drawn.shape == (40, 60, 3)
    assert (drawn.max(axis=2) < 80).any()  # the ground of the letters


def test_letters_without_a_font_are_escaped(monkeypatch):
    fonts = [font for font in figures._installed_fonts() if font[0] == "DejaVu Sans"]
    monkeypatch.setattr(figures, "_installed_fonts", lambda: fonts)
    photo = np.full((100, 300, 3), 200, np.uint8)

    foreign, escaped = (annotate(photo, [answer(None, x)]) for x in ("喜び", r"\u559c\u3073"))

    assert foreign == escaped


def test_what_speaks_for_is_orange_and_what_speaks_against_is_blue():
    values = np.zeros((4, 4), np.float32)
    values[0, 0], values[3, 3] = 2, -2

    picture = np.asarray(overlay(CROP, values, scale=2)).astype(int)

    red, _, blue = picture[8, 8]
    assert red > blue + 50
    red, _, blue = picture[SIDE - 8, SIDE - 8]
    assert blue > red + 50
    np.testing.assert_array_equal(picture[SIDE // 2, 20], [120, 120, 120])


def test_maps_have_one_scale_and_rounding_stays_pale():
    strong, weak = np.full((2, 2), 1.0, np.float32), np.full((2, 2), 1e-7, np.float32)

    maps = draw_maps(CROP, Explanation("happy", strong, {"a": strong, "b": weak}))

    pictures = {name: read(data) for name, data in maps.items()}
    assert list(pictures) == ["fused", "a", "b"]
    np.testing.assert_array_equal(pictures["fused"], pictures["a"])
    np.testing.assert_array_equal(pictures["b"], 120)
    alone = draw_maps(CROP, Explanation("happy", weak, {"b": weak}))
    np.testing.assert_array_equal(read(alone["fused"]), 120)
