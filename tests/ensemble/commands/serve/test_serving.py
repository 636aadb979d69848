import base64
import io
import struct
import threading
import time
import zlib
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from configs.schema import FaceConfig
from ensemble.commands.predict.face_search import FaceSearch
from ensemble.commands.predict.predictor import Faces, Predictor
from ensemble.faces.registry import Box, Face
from ensemble.model.composition import build_model
from ensemble.model.runtimes import ExportedModel

pytest.importorskip("httpx2", reason="the test client of Starlette needs it")
TestClient = pytest.importorskip("starlette.testclient").TestClient

from ensemble.commands.serve.service import Limits, build_app  # noqa: E402

LIMITS = Limits(upload_bytes=100_000, upload_seconds=5, response_seconds=20, requests=8)


def find_left(image: np.ndarray) -> list[Face]:
    """Takes the left half of what is wider than high for a face, and nothing of the rest."""
    height, width = image.shape[:2]
    return [Face(Box(0, 0, width / 2, float(height)), 0.8)] if width > height else []


@pytest.fixture
def predictor(tiny: str) -> Predictor:
    ensemble = build_model([tiny, "tiny:b"], classes=["b", "a"], image_size=16, weights="random")
    return Predictor(ensemble, search=FaceSearch(find_left, FaceConfig(detector="left", margin=0)))


@pytest.fixture
def client(predictor: Predictor) -> Iterator[TestClient]:
    app = build_app(predictor, name="mine", card="# Card", limits=LIMITS)
    with TestClient(app, base_url="http://localhost", raise_server_exceptions=False) as client:
        yield client


def picture(width: int = 80, height: int = 40, form: str = "PNG") -> bytes:
    pixels = np.random.default_rng(width).integers(0, 255, (height, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form)
    return buffer.getvalue()


def bomb() -> bytes:
    """A PNG of a kilobyte that claims 60,000 x 60,000 pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        body = name + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1_000_000))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


def test_a_photo_is_answered_as_by_the_predictor(client, predictor):
    answer = client.post("/predict", content=picture()).json()

    expected = predictor.predict(picture())[0]
    (found,) = answer["predictions"]
    assert answer["model"] == "mine"
    assert answer["face_detector"] == "left"
    assert answer["classes"] == ["b", "a"]
    assert found["label"] == expected.label
    assert found["probabilities"] == pytest.approx(dict(expected.probabilities), abs=1e-6)
    assert found["box"] == {"left": 0, "top": 0, "width": 40, "height": 40}
    assert "heat_maps" not in found


def test_a_photo_without_a_face_is_an_answer_too(client):
    response = client.post("/predict", content=picture(40, 80))

    assert response.status_code == 200
    assert [p["status"] for p in response.json()["predictions"]] == ["no_face"]


def test_heat_maps_come_on_request(client):
    (found,) = client.post("/predict?explain=1", content=picture()).json()["predictions"]

    assert list(found["heat_maps"]) == ["fused", "tiny", "tiny:b"]
    for source in found["heat_maps"].values():
        kind, _, data = source.partition(",")
        assert kind == "data:image/png;base64"
        assert Image.open(io.BytesIO(base64.b64decode(data))).size == (224, 224)


@pytest.mark.parametrize(
    ("content", "status", "told"),
    [
        (b"", 400, "There is no image in the request"),
        (b"x" * 100_001, 413, "The image is larger than 0.09"),
        (b"no image at all", 422, "cannot be read: not an image"),
        (picture()[:200], 422, "cannot be read: truncated"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 422, "cannot be read"),
        (bomb(), 422, "too many pixels; at most 100,000,000 are read"),
    ],
    ids=["empty", "huge", "text", "cut", "drawing", "bomb"],
)
def test_a_bad_upload_is_told_and_the_server_goes_on(client, content, status, told):
    response = client.post("/predict", content=content)

    assert response.status_code == status
    assert told in response.json()["error"]
    assert client.post("/predict", content=picture()).status_code == 200


def test_a_huge_upload_of_unknown_size_is_cut_off(client):
    taken = []

    def endless() -> Iterator[bytes]:
        for number in range(1000):
            taken.append(number)
            yield b"x" * 10_000

    assert client.post("/predict", content=endless()).status_code == 413


def test_a_form_is_told_what_to_send(client):
    response = client.post("/predict", files={"photo": picture()})

    assert response.status_code == 415
    assert "Send the image file itself" in response.json()["error"]


def test_health_card_and_page(client):
    health = client.get("/health").json()
    page = client.get("/")

    assert health["status"] == "ok"
    assert health["classes"] == ["b", "a"]
    assert health["upload_bytes"] == 100_000
    assert health["face_detector"] == "left"
    assert health["explains"] is True
    assert client.get("/card").text == "# Card"
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "http://" not in page.text.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in page.text


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/x", 404), ("GET", "/predict", 405)]
)
def test_other_requests_are_told_in_json(client, method, path, status):
    response = client.request(method, path)

    assert response.status_code == status
    assert response.json()["error"]


def test_a_foreign_host_name_is_refused(client):
    assert client.get("/health", headers={"Host": "evil.example"}).status_code == 400


@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1", "[::1]:8000"])
def test_this_machine_may_call_under_each_of_its_names(client, host):
    assert client.get("/health", headers={"Host": host}).status_code == 200


def test_without_a_card_there_is_none(predictor):
    with TestClient(build_app(predictor, name="x"), base_url="http://localhost") as client:
        assert client.get("/card").status_code == 404
        assert "<summary>" not in client.get("/").text


def test_an_export_says_that_it_cannot_be_explained():
    answers = np.tile(np.float32([0.25, 0.75]), (1, 1))
    exported = ExportedModel(("b", "a"), 16, {}, lambda images: np.repeat(answers, len(images), 0))
    app = build_app(Predictor(exported, search=FaceSearch()), name="x")
    with TestClient(app, base_url="http://localhost") as client:
        explained = client.post("/predict?explain=1", content=picture())

        assert client.get("/health").json()["explains"] is False
        assert explained.status_code == 400
        assert "cannot be explained" in explained.json()["error"]
        assert client.post("/predict", content=picture()).json()["predictions"][0]["label"] == "a"


class Slow(Predictor):
    """A predictor whose first answer waits until it is let go."""

    def __init__(self, *arguments: object, **options: object) -> None:
        super().__init__(*arguments, **options)
        self.gate = threading.Event()
        self.looking = threading.Event()

    def look(self, name: str, source: object) -> Faces:
        self.looking.set()
        self.gate.wait(10)
        return super().look(name, source)


@pytest.fixture
def slow(predictor: Predictor) -> Slow:
    return Slow(predictor.model, search=predictor.search)


def test_too_many_requests_are_turned_away_and_the_others_answered(slow):
    app = build_app(slow, name="x", limits=Limits(requests=1))
    with TestClient(app, base_url="http://localhost") as client:
        statuses = []
        first = threading.Thread(
            target=lambda: statuses.append(client.post("/predict", content=picture()).status_code)
        )
        first.start()
        assert slow.looking.wait(10)

        refused = client.post("/predict", content=picture())
        slow.gate.set()
        first.join(10)

        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert statuses == [200]
        assert client.get("/health").json()["in_work"] == 0


def test_an_answer_that_takes_too_long_is_told(slow):
    app = build_app(slow, name="x", limits=Limits(response_seconds=0.1))
    with TestClient(app, base_url="http://localhost") as client:
        started = time.perf_counter()
        response = client.post("/predict", content=picture())
        slow.gate.set()

    assert response.status_code == 503
    assert "took too long" in response.json()["error"]
    assert time.perf_counter() - started < 9


def test_a_failure_of_the_model_is_told_without_its_inside(client, predictor, monkeypatch):
    def fail(*_: object) -> None:
        raise ValueError("a secret")

    monkeypatch.setattr(predictor, "answer", fail)

    response = client.post("/predict", content=picture())

    assert response.status_code == 500
    assert "secret" not in response.text
    assert client.get("/health").status_code == 200
