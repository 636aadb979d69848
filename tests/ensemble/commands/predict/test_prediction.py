import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from configs.errors import ConfigError, RunError
from configs.schema import FaceConfig
from ensemble.commands.predict.face_search import FaceSearch, choose_search
from ensemble.commands.predict.predictor import Predictor
from ensemble.data.decoding import decode
from ensemble.data.reading import inspect
from ensemble.experiment import FitResult, fit
from ensemble.faces import crops
from ensemble.faces.registry import DETECTORS, Box, DetectorSpec, Face
from ensemble.faces.store import read_dataset
from ensemble.metrics.evaluating import predict_split
from ensemble.model.composition import MultiBranchModel, build_model

SIZE = 16


class Corners:
    """A detector that takes each patch of pure white for a face."""

    def __call__(self, image: np.ndarray) -> list[Face]:
        white = (image == 255).all(axis=2)
        halves = (slice(None, image.shape[1] // 2), slice(image.shape[1] // 2, None))
        faces = []
        for half in halves:
            rows, columns = np.nonzero(white[:, half])
            if len(rows):
                left, top = columns.min() + (half.start or 0), rows.min()
                size = (columns.max() - columns.min() + 1, rows.max() - rows.min() + 1)
                faces.append(Face(Box(float(left), float(top), *map(float, size)), 0.9))
        return faces


SPEC = DetectorSpec("corners", "white patches", lambda *_: Corners())


@pytest.fixture
def corners(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(crops, "_CANDIDATES", ("corners",))
    with DETECTORS.temporary(SPEC):
        yield SPEC.name


@pytest.fixture
def model(tiny: str) -> MultiBranchModel:
    return build_model([tiny], classes=["b", "a"], image_size=SIZE, weights="random")


def photo(*boxes: tuple[int, int, int], size: tuple[int, int] = (200, 400)) -> np.ndarray:
    """A dark photo with white squares, each given as left, top and side."""
    pixels = np.random.default_rng(0).integers(0, 90, (*size, 3), dtype=np.uint8)
    for left, top, side in boxes:
        pixels[top : top + side, left : left + side] = 255
    return pixels


def direct(model: MultiBranchModel, images: list[np.ndarray]) -> np.ndarray:
    return model.model.predict(np.stack(images).astype("float32"), verbose=0)


def test_each_face_has_an_answer_of_the_model_itself(model):
    pixels = photo((20, 30, 40), (300, 80, 60))

    answers = Predictor(
        model, search=FaceSearch(Corners(), FaceConfig(margin=0, several="all"))
    ).predict(pixels)

    assert [answer.box for answer in answers] == [Box(300, 80, 60, 60), Box(20, 30, 40, 40)]
    crops = [decode(pixels[80:140, 300:360], SIZE), decode(pixels[30:70, 20:60], SIZE)]
    for answer, row in zip(answers, direct(model, crops), strict=True):
        assert answer.status == "predicted"
        assert list(answer.probabilities) == ["b", "a"]
        np.testing.assert_allclose(list(answer.probabilities.values()), row, atol=1e-6)
        assert answer.label == ("b", "a")[row.argmax()]
        assert answer.confidence == pytest.approx(row.max(), abs=1e-6)


def test_many_photos_are_answered_in_order_and_as_each_alone(model):
    predictor = Predictor(model, search=FaceSearch(Corners(), FaceConfig(margin=0, several="all")))
    photos: list[tuple[str, object]] = []
    for number in range(70):
        boxes = [(20, 30, 20 + number)] if number % 3 else [(10, 10, 30), (250, 20, 50)]
        photos.append((str(number), b"no image" if number % 10 == 5 else photo(*boxes)))

    answers = [answer for _, found in predictor.predict_all(photos) for answer in found]

    alone = [answer for name, pixels in photos for answer in predictor.predict(pixels, name=name)]
    assert [(a.name, a.status, a.box) for a in answers] == [
        (a.name, a.status, a.box) for a in alone
    ]
    confidences = [[a.confidence or 0 for a in found] for found in (answers, alone)]
    np.testing.assert_allclose(*confidences, atol=1e-6)
    assert sum(answer.status == "unreadable" for answer in answers) == 7


def test_an_answer_below_the_confidence_is_uncertain_and_has_no_label(model):
    pixels = photo(size=(20, 20))
    confidence = Predictor(model, search=FaceSearch()).predict(pixels)[0].confidence
    assert confidence is not None

    below, above = (
        Predictor(model, search=FaceSearch(), min_confidence=confidence + step).predict(pixels)[0]
        for step in (-1e-4, 1e-4)
    )

    assert (below.status, above.status) == ("predicted", "uncertain")
    assert above.label is None
    assert above.probabilities == pytest.approx(below.probabilities)
    assert above.caption == f"uncertain ({below.caption})"


@pytest.mark.parametrize(
    ("source", "status", "reason"),
    [
        (b"", "unreadable", "the file is empty"),
        (b"GIF89a and then nothing", "unreadable", ""),
        (Path("gone.png"), "unreadable", "No such file or directory"),
        (photo(), "no_face", "no face is found"),
    ],
)
def test_what_has_no_answer_says_why(model, source, status, reason):
    answers = Predictor(model, search=FaceSearch(Corners())).predict(source)

    assert [answer.status for answer in answers] == [status]
    assert reason in answers[0].reason
    assert answers[0].probabilities is None
    assert answers[0].caption == status.replace("_", " ")


def test_a_run_on_images_as_they_are_searches_photos_and_takes_crops_whole(model, corners):
    predictor = Predictor(model)

    found = predictor.predict(photo((300, 80, 60)))
    crop = predictor.predict(photo((10, 10, 80), size=(100, 100)))
    faceless = predictor.predict(photo(size=(100, 100)))

    assert [answer.box for answer in found] == [Box(300, 80, 60, 60)]
    assert [(answer.box, answer.reason) for answer in crop] == [(None, "")]
    assert [(answer.box, answer.reason) for answer in faceless] == [
        (None, "no face is found, so the whole image is taken")
    ]


@pytest.mark.parametrize(
    ("size", "status"),
    [
        ((48, 48), "whole"),
        ((256, 200), "whole"),
        ((257, 257), "no_face"),
        ((100, 40), "no_face"),
        ((600, 800), "no_face"),
    ],
)
def test_an_image_without_a_face_is_a_crop_only_by_its_size(corners, size, status):
    result = choose_search().find(photo(size=size))

    assert result.status == status
    assert ("--faces none" in result.reason) == (status == "no_face")
    assert choose_search(FaceConfig(detector="none")).find(photo(size=size)).status == "whole"


def fail(model: object, threshold: object) -> None:
    raise ConfigError("OpenCV is missing.")


@pytest.fixture
def fallback(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The better detector is not available, the other one is."""
    monkeypatch.setattr(crops, "_CANDIDATES", ("broken", "corners"))
    with DETECTORS.temporary(SPEC), DETECTORS.temporary(DetectorSpec("broken", "", fail)):
        yield SPEC.name


def test_a_fallback_is_named_and_warned_of_in_one_line(fallback, caplog):
    search = choose_search()

    assert search.settings.detector == fallback
    (warning,) = caplog.messages
    assert "OpenCV is missing." in warning
    assert "\n" not in warning


@pytest.mark.parametrize("given", [{"model": Path("x.onnx")}, {"threshold": 0.9}])
def test_what_is_given_for_the_better_detector_is_not_passed_to_the_other(fallback, given):
    with pytest.raises(ConfigError, match=r"OpenCV is missing\."):
        choose_search(FaceConfig(detector="auto", **given))


def test_a_run_on_faces_out_of_photos_predicts_with_its_own_settings(corners):
    trained = FaceConfig(detector=corners, margin=0.3, align=True, no_face="error")

    search = choose_search(trained=trained)

    assert isinstance(search.detector, Corners)
    settings = search.settings
    assert (settings.margin, settings.align, settings.no_face) == (0.3, True, "skip")
    assert not search.accepts_crops
    whole = choose_search(trained=trained.model_copy(update={"no_face": "whole"}))
    assert whole.find(photo()).reason == "no face is found, so the whole image is taken"


def test_a_model_file_predicts_with_the_face_settings_it_records(model, corners, tmp_path):
    faces = FaceConfig(detector=corners, margin=0.3, align=True)
    path = tmp_path / "alone.keras"
    model.save(path, protocol={"faces": faces.model_dump(mode="json")})

    search = Predictor(path).search

    assert isinstance(search.detector, Corners)
    assert (search.settings.margin, search.settings.align, search.accepts_crops) == (
        0.3,
        True,
        False,
    )
    model.save(path, protocol={"faces": "corners"})
    with pytest.raises(RunError, match="has no valid `faces`"):
        Predictor(path)


def test_without_any_detector_each_image_is_taken_whole_and_it_is_told(monkeypatch, caplog):
    monkeypatch.setattr(crops, "_CANDIDATES", ("broken",))
    with DETECTORS.temporary(DetectorSpec("broken", "", fail)), caplog.at_level("WARNING"):
        search = choose_search()

    assert search.detector is None
    assert "each image is taken whole. OpenCV is missing." in caplog.text
    with pytest.raises(ConfigError, match="Unknown face detector"):
        choose_search(FaceConfig(detector="yunett"))


@pytest.fixture
def trained(make_config) -> FitResult:
    return fit(make_config())


def test_whole_images_are_answered_as_in_the_evaluation(trained):
    config = trained.run.config
    split = inspect(read_dataset(config.data, config.seed).validation, SIZE).readable
    expected = predict_split(trained.ensemble, split)
    predictor = Predictor(trained.run.folder, search=choose_search(FaceConfig(detector="none")))

    answers = [
        answer for name in split.names for answer in predictor.predict(split.images.read(name))
    ]

    assert len(answers) == len(split)
    rows = [list(answer.probabilities.values()) for answer in answers]
    np.testing.assert_allclose(rows, expected, atol=1e-6)


def test_a_model_file_alone_is_enough(trained, tmp_path):
    path = tmp_path / "alone.keras"
    path.write_bytes((trained.run.folder / "model.keras").read_bytes())
    picture = tmp_path / "red.png"
    Image.new("RGB", (20, 20), (230, 60, 60)).save(picture)

    answer = Predictor(path, search=FaceSearch()).predict(str(picture))[0]

    assert answer.name == str(picture)
    assert answer.label in ("blue", "red")
    with pytest.raises(RunError, match="holds no ensemble"):
        Predictor(tmp_path / "gone.keras", search=FaceSearch())


def test_real_photos_are_searched_and_real_crops_are_taken_whole(shared_data, monkeypatch):
    pytest.importorskip("cv2")
    monkeypatch.setattr(crops, "_CANDIDATES", ("yunet",))
    search = choose_search(
        FaceConfig(detector="auto", model=shared_data / "face_detection_yunet_2026may.onnx")
    )

    def statuses(archive: str, count: int) -> list[str]:
        with zipfile.ZipFile(shared_data / archive) as files:
            names = [name for name in files.namelist() if name.endswith((".jpg", ".png"))]
            return [search.find(files.read(name)).status for name in names[:count]]

    assert sorted(statuses("photos.zip", 10)) == [*["found"] * 9, "no_face"]  # dogs.jpg
    assert set(statuses("emotions3_small.zip", 60)) == {"whole"}
