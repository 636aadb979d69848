"""Laws of the face detectors, on real photos where they are at hand."""

import csv
import io
import sys
import zipfile

import numpy as np
import pytest

from configs.errors import ConfigError, WeightsError
from configs.schema import FaceConfig
from ensemble.faces.crops import build_detector, crop_faces
from ensemble.faces.registry import DETECTORS


@pytest.fixture
def cv2():
    return pytest.importorskip("cv2")


@pytest.fixture
def build(cv2, shared_data):
    """Builds a detector with the model that lies beside the real photos."""

    def build_from_disk(name, threshold=None):
        if name == "haar" and not hasattr(cv2, "CascadeClassifier"):
            pytest.skip("this OpenCV has no cascades")
        models = {"yunet": shared_data / "face_detection_yunet_2026may.onnx"}
        return build_detector(name, models.get(name), threshold)

    return build_from_disk


@pytest.fixture
def photos(shared_data):
    """Photo to its bytes and the boxes of its faces, as its authors marked them."""
    with zipfile.ZipFile(shared_data / "photos.zip") as archive:
        rows = csv.DictReader(io.TextIOWrapper(archive.open("photos/boxes.csv")))
        boxes = {}
        for row in rows:
            box = [float(row[side]) for side in ("left", "top", "width", "height")]
            boxes.setdefault(row["name"], []).append(box)
        return {name: (archive.read(f"photos/{name}"), found) for name, found in boxes.items()}


def overlap(a, b):
    """Returns the area that two boxes share, as a part of what they cover together."""
    across = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    down = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    shared = max(across, 0) * max(down, 0)
    return shared / (a[2] * a[3] + b[2] * b[3] - shared)


@pytest.mark.parametrize(("name", "least"), [("yunet", 36), ("haar", 28)])
def test_marked_faces_are_found(name, least, build, photos):
    detector = build(name)
    found = others = 0
    for source, marked in photos.values():
        crops = crop_faces(source, detector, FaceConfig(several="all")).crops
        hits = {
            place
            for place, box in enumerate(marked)
            if any(overlap(crop.box, box) >= 0.3 for crop in crops)
        }
        found += len(hits)
        others += len(crops) - len(hits)

    assert found >= least
    assert others <= 6


def test_yunet_takes_no_dog_for_a_face(build, shared_data):
    with zipfile.ZipFile(shared_data / "photos.zip") as archive:
        dogs = archive.read("photos/dogs.jpg")

    assert crop_faces(dogs, build("yunet")).status == "no_face"
    assert crop_faces(dogs, build("yunet", 0.6)).status == "found"


def test_yunet_tells_eyes_within_their_face(build, photos):
    detector = build("yunet")
    for source, _ in photos.values():
        image = crop_faces(source, None).crops[0].pixels
        for face in detector(image):
            (left, _), (right, _) = face.eyes
            assert face.box.left <= left < right <= face.box.left + face.box.width


@pytest.mark.parametrize("name", ["yunet", "haar"])
def test_a_higher_threshold_finds_no_more(name, build, photos):
    image = crop_faces(next(iter(photos.values()))[0], None).crops[0].pixels
    counts = [len(build(name, threshold)(image)) for threshold in (0.3, 0.9, 50)]

    assert counts[0] >= counts[1] >= counts[2]
    assert counts[0] > counts[2]


@pytest.mark.parametrize("name", sorted(set(DETECTORS.names()) - {"none"}))
def test_a_blank_image_has_no_face(name, build):
    assert build(name)(np.full((64, 96, 3), 128, np.uint8)) == []


def test_a_detector_without_opencv_is_told_in_a_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)

    for name in ("yunet", "haar"):
        with pytest.raises(ConfigError, match="pip install 'opencv-python-headless<5'"):
            build_detector(name)
    assert build_detector("none") is None


def test_cascades_are_missed_in_a_sentence(cv2, monkeypatch):
    monkeypatch.delattr(cv2, "CascadeClassifier", raising=False)

    with pytest.raises(ConfigError, match="Use --faces yunet"):
        build_detector("haar")


def test_a_file_that_is_no_model_is_told_in_a_sentence(cv2, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"no model")

    with pytest.raises(WeightsError, match=r"cannot read .*model\.onnx as YuNet"):
        build_detector("yunet", path)
    if hasattr(cv2, "CascadeClassifier"):
        with pytest.raises(WeightsError, match="is not a cascade"):
            build_detector("haar", path)


def test_a_misspelt_detector_is_answered_with_its_near_miss():
    with pytest.raises(ConfigError, match=r"Unknown face detector 'yunnet'. Did you mean 'yunet'"):
        build_detector("yunnet")
