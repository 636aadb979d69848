"""The page in a browser: photos are chosen and taken, answers and heat maps appear."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from chromium import CHROMIUM, Tab, open_tab
from PIL import Image

from ensemble.commands.predict.face_search import FaceSearch
from ensemble.commands.predict.predictor import Predictor
from ensemble.faces.registry import Box, Face
from ensemble.model.composition import build_model

pytest.importorskip("starlette")
uvicorn = pytest.importorskip("uvicorn")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium"),
    pytest.mark.slow,
]
CARD = (
    "# Card\n\n## Classes\n\nIn **this** order: `a`, <b>.\n\n- one\n- two\n\n"
    "| x   | y |\n| --- | - |\n| a\\|b | 2 |\n"
)


def find_two(image: np.ndarray) -> list[Face]:
    height, width = image.shape[:2]
    return [
        Face(Box(width * left, height * 0.2, width * 0.3, height * 0.5), 0.9)
        for left in (0.1, 0.55)
    ]


@pytest.fixture
def address(tiny: str) -> Iterator[str]:
    from ensemble.commands.serve.service import build_app

    ensemble = build_model([tiny, "tiny:b"], classes=["a", "<b>"], image_size=16, weights="random")
    app = build_app(Predictor(ensemble, search=FaceSearch(find_two)), name="mine", card=CARD)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.05)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
    server.should_exit = True
    thread.join(10)


@pytest.fixture
def tab(address: str, tmp_path: Path) -> Iterator[Tab]:
    with open_tab(tmp_path / "profile") as tab:
        tab.resize(1280, 900)
        tab.send("Page.navigate", url=address)
        tab.wait_for("document.querySelector('#name')?.textContent === 'mine'")
        yield tab


def texts(tab: Tab, selector: str) -> list[str]:
    return tab.evaluate(
        f"[...document.querySelectorAll({selector!r})].map(element => element.textContent)"
    )


def test_the_page_shows_answers_and_what_decided(tab, tmp_path):
    photo = tmp_path / "photo.png"
    noise = np.random.default_rng(0).integers(0, 255, (300, 400, 3), dtype=np.uint8)
    Image.fromarray(noise).save(photo)
    (tmp_path / "broken.png").write_bytes(b"no image")

    tab.choose_file("#file", photo)
    tab.wait_for("document.querySelector('#status').textContent === '2 faces.'")
    assert texts(tab, ".bars li span:first-child") == ["a", "<b>", "a", "<b>"]
    shares = [float(text.removesuffix(" %")) for text in texts(tab, ".share")]
    assert sum(shares[:2]) == pytest.approx(100, abs=1.1)
    assert texts(tab, ".tag") == ["1", "2"]
    place = "document.querySelectorAll('#stage rect')[1].getBoundingClientRect()"
    inside = "document.querySelector('#stage img').getBoundingClientRect()"
    left = tab.evaluate(f"({place}.left - {inside}.left) / {inside}.width")
    assert left == pytest.approx(0.1, abs=0.02)

    tab.evaluate("document.querySelector('#explain').click()")
    tab.wait_for("document.querySelectorAll('.maps img').length === 6")
    assert texts(tab, ".maps figcaption")[:3] == ["all branches", "tiny", "tiny:b"]
    assert tab.wait_for("document.querySelector('.maps img').naturalWidth") == 224

    assert texts(tab, "#card td") == ["a|b", "2"]
    assert texts(tab, "#card li") == ["one", "two"]
    assert texts(tab, "#card h3, #card strong, #card code, #card b") == ["Classes", "this", "a"]
    for width in (1280, 390, 320):
        tab.resize(width, 800)
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert tab.complaints == []

    tab.choose_file("#file", tmp_path / "broken.png")
    tab.wait_for("document.querySelector('#status').className === 'bad'")
    assert texts(tab, "#status") == ["The image cannot be read: not an image."]
    assert tab.evaluate("document.querySelector('#result').hidden")


def test_a_picture_is_taken_with_the_camera(tab):
    tab.evaluate("document.querySelector('#camera').click()")
    tab.wait_for("document.querySelector('#video').videoWidth")
    tab.evaluate("document.querySelector('#snap').click()")

    tab.wait_for("document.querySelector('#status').textContent === '2 faces.'")
    assert tab.evaluate("document.querySelector('#live').hidden")
    assert tab.complaints == []
