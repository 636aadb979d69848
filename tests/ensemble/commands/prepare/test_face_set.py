"""Laws of preparing: a set that trains as it stands, and that no interruption spoils."""

import csv
import io
import shutil

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from configs.errors import DataError, RunError, WeightsError
from configs.schema import FaceConfig, FaceSetConfig
from ensemble.commands.prepare.__main__ import main
from ensemble.commands.prepare.face_set import prepare_faces
from ensemble.data.decoding import decode
from ensemble.data.loading import load_dataset
from ensemble.data.reading import read_image
from ensemble.data.registry import Location
from ensemble.faces import crops
from ensemble.faces.crops import crop_faces
from ensemble.faces.registry import DETECTORS, Box, DetectorSpec, Face
from ensemble.faces.store import face_images

BOOKS = ("manifest.csv", "left_out.csv", "contact_sheet.png")


def find_red(image):
    """A detector of red rectangles, whatever their texture."""
    red = (image[..., 0] > 220) & (image[..., 1] < 100)
    return [
        Face(Box(x.start, y.start, x.stop - x.start, y.stop - y.start), 0.75)
        for y, x in ndimage.find_objects(ndimage.label(red)[0])
    ]


@pytest.fixture(autouse=True)
def searches():
    """Registers the detector `red`; the photos that it was asked about."""
    asked = []

    def detect(image):
        asked.append(image)
        return find_red(image)

    with DETECTORS.temporary(DetectorSpec("red", "red rectangles", lambda *_: detect)):
        yield asked


def photo(seed, *boxes):
    """A picture with a red rectangle, of a texture of its own, at each box."""
    generator = np.random.default_rng(seed)
    cells = generator.integers(0, 200, (20, 20, 3), dtype=np.uint8)
    pixels = np.array(Image.fromarray(cells).resize((100, 80), Image.Resampling.BICUBIC))
    pixels[..., 0] = np.minimum(pixels[..., 0], 200)
    for left, top, width, height in boxes:
        face = pixels[top : top + height, left : left + width]
        face[..., 0] = generator.integers(230, 256)
        face[..., 1] = np.minimum(face[..., 1], 90)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


FACE, SMALL = (20, 20, 30, 30), (70, 50, 16, 20)


@pytest.fixture
def raw(tmp_path):
    """Photos of two classes in two splits: one without a face, one torn, one with two faces."""
    photos = {
        "train/happy/a.png": photo(1, FACE),
        "train/happy/b.png": photo(2, FACE, SMALL),
        "train/sad/a.png": photo(3, FACE),
        "train/sad/empty.png": photo(4),
        "train/sad/torn.png": photo(5, FACE)[:200],
        "val/happy/c.png": photo(6, FACE),
        "val/sad/d é.png": photo(7, FACE),
    }
    for name, content in photos.items():
        write(tmp_path / "raw" / name, content)
    return tmp_path / "raw"


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def settings(faces=None, **more):
    return FaceSetConfig(faces={"detector": "red", **(faces or {})}, **more)


def prepare(raw, output, *, faces=None, **more):
    return prepare_faces([raw], output, settings(faces, **more))


def read(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def contents(folder):
    """Returns all files but the hidden ones: relative path to content."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in files
        if not path.name.startswith(".")
    }


def test_a_set_trains_as_it_stands(raw, tmp_path):
    prepare(raw, tmp_path / "faces")

    dataset = load_dataset(Location((tmp_path / "faces",)))

    assert dataset.classes == ("happy", "sad")
    assert len(dataset.train) == 3
    assert len(dataset.validation) == 2
    assert dataset.problems == []
    assert np.bincount(dataset.train.labels).tolist() == [2, 1]


def test_every_photo_is_in_one_of_two_tables(raw, tmp_path):
    said = prepare(raw, tmp_path / "faces")

    kept, left_out = (read(tmp_path / "faces" / book) for book in BOOKS[:2])
    sources = [row["source"] for row in (*kept, *left_out)]
    photos = [path.relative_to(raw).as_posix() for path in raw.rglob("*.png")]
    assert sorted(sources) == sorted(photos)
    assert {row["source"]: row["status"] for row in left_out} == {
        "train/sad/empty.png": "no_face",
        "train/sad/torn.png": "unreadable",
    }
    assert all(row["reason"] for row in left_out)
    first = kept[0]
    assert (first["label"], first["split"], first["group"]) == ("happy", "train", first["source"])
    box = [int(first[side]) for side in ("left", "top", "width", "height")]
    assert box == list(FACE)
    assert float(first["score"]) == 0.75
    for words in (
        "5 faces of 5 photos",
        "1 photos that have no face",
        "1 photos that cannot be read",
        "1 smaller faces of 1 photos",
        "happy 3, sad 2",
    ):
        assert words in said


def test_preparing_training_and_predicting_see_the_same_pixels(raw, tmp_path):
    faces = {"detector": "red", "margin": 0.3}
    prepare(raw, tmp_path / "faces", faces=faces)
    prepared = {row["source"]: row["path"] for row in read(tmp_path / "faces" / "manifest.csv")}
    split = load_dataset(Location((raw,))).train
    store = face_images(split.images, FaceConfig(**faces))
    split = type(split)(store, split.names, split.labels, split.weights, split.groups)

    compared = 0
    for place, name in enumerate(split.names):
        if name not in prepared:
            continue
        stored = decode((tmp_path / "faces" / prepared[name]).read_bytes(), 48)
        trained = read_image(split, place, 48)
        (crop,) = crop_faces((raw / name).read_bytes(), find_red, FaceConfig(margin=0.3)).crops
        assert np.array_equal(stored, trained)
        assert np.array_equal(stored, decode(crop.pixels, 48))
        compared += 1
    assert compared == 3


def test_all_faces_of_a_photo_share_a_group(raw, tmp_path):
    prepare(raw, tmp_path / "faces", faces={"several": "all"})

    rows = [
        row for row in read(tmp_path / "faces" / "manifest.csv") if row["source"].endswith("b.png")
    ]
    assert len(rows) == 2
    assert len({row["path"] for row in rows}) == 2
    assert len({row["group"] for row in rows}) == 1
    dataset = load_dataset(Location((tmp_path / "faces",)))
    assert sorted(dataset.train.groups).count("train/happy/b.png") == 2


def test_photos_without_labels_become_a_flat_set_to_be_sorted(tmp_path):
    for number in range(4):
        write(tmp_path / "raw" / f"album {number // 2}" / f"{number}.png", photo(number, FACE))
    output = tmp_path / "faces"

    prepare(tmp_path / "raw", output, unlabelled=True)

    rows = read(output / "manifest.csv")
    assert "label" not in rows[0]
    assert len(rows) == 4
    assert all("/" not in row["path"] for row in rows)
    for number, row in enumerate(rows):
        (output / "ab"[number % 2]).mkdir(exist_ok=True)
        (output / row["path"]).rename(output / "ab"[number % 2] / row["path"])
    assert load_dataset(Location((output,))).classes == ("a", "b")


def test_labels_and_groups_of_a_table_are_kept(tmp_path):
    for number in range(6):
        write(tmp_path / "raw" / f"{number}.png", photo(number, FACE))
    labels = ["sad", "Happy", "sad", "HAPPY", "Sad", "HAPPY"]
    rows = [f"{n}.png,{labels[n]},person {n // 2}" for n in range(6)]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label,subject", *rows]))

    prepare(tmp_path / "raw", tmp_path / "faces", labels=tmp_path / "labels.csv")

    found = read(tmp_path / "faces" / "manifest.csv")
    assert [(row["source"], row["label"], row["group"]) for row in found] == [
        (f"{n}.png", "HAPPY" if n % 2 else "sad", f"person {n // 2}") for n in range(6)
    ]
    assert {row["path"].split("/")[0] for row in found} == {"happy", "sad"}


def test_a_second_call_searches_nothing_and_changes_nothing(raw, tmp_path, searches):
    prepare(raw, tmp_path / "faces")
    before = contents(tmp_path / "faces")
    searches.clear()

    said = prepare(raw, tmp_path / "faces")

    assert searches == []
    assert contents(tmp_path / "faces") == before
    assert "7 photos were done already" in said


@pytest.mark.parametrize("after", range(1, 6))
def test_an_interrupted_call_goes_on_to_the_same_set(after, raw, tmp_path, searches):
    prepare(raw, tmp_path / "whole" / "faces")
    asked = []

    def interrupt(image):
        asked.append(image)
        if len(asked) == after:
            raise KeyboardInterrupt
        return find_red(image)

    with DETECTORS.temporary(DetectorSpec("slow", "red rectangles", lambda *_: interrupt)):
        with pytest.raises(KeyboardInterrupt):
            prepare(raw, tmp_path / "faces", faces={"detector": "slow"})
        assert not (tmp_path / "faces" / "manifest.csv").exists()
        write(tmp_path / "faces" / "train" / ".part-killed" / "half.png", b"half a face")
        prepare(raw, tmp_path / "faces", faces={"detector": "slow"})

    assert contents(tmp_path / "faces") == contents(tmp_path / "whole" / "faces")
    assert not (tmp_path / "faces" / "train" / ".part-killed").exists()


def test_photos_that_come_go_and_change_class_are_followed(raw, tmp_path):
    prepare(raw, tmp_path / "faces")
    (raw / "train/happy/a.png").rename(raw / "train/sad/z.png")
    shutil.rmtree(raw / "val/happy")
    write(raw / "val/fear/new.png", photo(9, FACE))
    (raw / "train/happy/b.png").write_bytes(photo(10, SMALL))
    (tmp_path / "faces" / read(tmp_path / "faces" / "manifest.csv")[2]["path"]).unlink()

    prepare(raw, tmp_path / "faces")
    prepare(raw, tmp_path / "anew" / "faces")

    assert contents(tmp_path / "faces") == contents(tmp_path / "anew" / "faces")
    assert "fear" in {row["label"] for row in read(tmp_path / "faces" / "manifest.csv")}


def test_a_near_duplicate_never_crosses_splits(raw, tmp_path):
    image = Image.open(io.BytesIO(photo(6, FACE)))  # of val/happy/c.png
    image.resize((200, 160), Image.Resampling.BICUBIC).save(raw / "train/happy/copy.png")
    write(raw / "train/happy/a again.png", photo(1, FACE))

    said = prepare(raw, tmp_path / "faces")

    kept, left_out = (read(tmp_path / "faces" / book) for book in BOOKS[:2])
    (dropped,) = [row for row in left_out if row["status"] == "duplicate"]
    assert dropped["source"] == "train/happy/copy.png"
    assert dropped["reason"] == "nearly the same as val/happy/c.png in validation"
    groups = {row["source"]: row["group"] for row in kept}
    assert groups["train/happy/a.png"] == groups["train/happy/a again.png"]
    assert len(set(groups.values())) == len(groups) - 1
    files = {name for name in contents(tmp_path / "faces") if name.endswith(".png")}
    assert files == {row["path"] for row in kept} | {"contact_sheet.png"}
    assert "4 photos are near-duplicates, in 2 groups" in said
    load_dataset(Location((tmp_path / "faces",)))  # which refuses groups that cross splits


def test_photos_without_any_face_are_told_too(tmp_path):
    write(tmp_path / "raw" / "empty.png", photo(1))

    said = prepare(tmp_path / "raw", tmp_path / "faces")

    assert "0 faces of 0 photos" in said
    assert [row["status"] for row in read(tmp_path / "faces" / "left_out.csv")] == ["no_face"]
    assert read(tmp_path / "faces" / "manifest.csv") == []


def test_other_settings_are_refused_in_a_folder_begun(raw, tmp_path):
    prepare(raw, tmp_path / "faces")

    with pytest.raises(DataError, match=r"margin: 0.1 then, 0.3 now"):
        prepare(raw, tmp_path / "faces", faces={"margin": 0.3})


def test_another_threshold_of_the_detector_itself_is_refused_too(raw, tmp_path):
    def prepare_at(own, **faces):
        with DETECTORS.temporary(DetectorSpec("own", "", lambda *_: find_red, "", own)):
            prepare(raw, tmp_path / "faces", faces={"detector": "own", **faces})

    prepare_at(0.7)
    prepare_at(0.8, threshold=0.7)
    with pytest.raises(DataError, match=r"threshold: 0.7 then, 0.8 now"):
        prepare_at(0.8)


def test_a_folder_that_is_no_set_is_left_alone(raw, tmp_path):
    write(tmp_path / "thesis" / "chapter.txt", b"text")

    with pytest.raises(DataError, match="is there already and is not a set of faces"):
        prepare(raw, tmp_path / "thesis")
    with pytest.raises(RunError, match="cannot be made"):
        prepare(raw, tmp_path / "thesis" / "chapter.txt" / "faces")
    for inside in (raw, raw / "faces"):
        with pytest.raises(DataError, match="among the photos"):
            prepare(raw, inside)
    assert contents(tmp_path / "thesis") == {"chapter.txt": b"text"}


def test_the_command_prepares_and_tells(raw, tmp_path, capsys):
    words = [str(raw), "--output", str(tmp_path / "faces"), "--faces", "red", "--faces.align"]

    assert main(words) == 0

    screen = capsys.readouterr().out
    assert "5 faces of 5 photos" in screen
    assert "face detector: red" in screen
    assert set(BOOKS) <= contents(tmp_path / "faces").keys()


def test_the_automatic_detector_falls_back_with_a_warning(raw, tmp_path, monkeypatch, caplog):
    def fail(*_):
        raise WeightsError("The face model is not available.")

    monkeypatch.setattr(crops, "_CANDIDATES", ("broken", "red"))
    with DETECTORS.temporary(DetectorSpec("broken", "", fail)):
        lines = prepare_faces([raw], tmp_path / "faces", FaceSetConfig())

    assert "face detector: red" in lines
    assert "The face model is not available." in caplog.text
    with pytest.raises(DataError, match="other settings"):
        prepare(raw, tmp_path / "faces", faces={"margin": 0.5})
    prepare(raw, tmp_path / "faces")  # the set is that of the detector which was used


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("{tmp}/rwa --faces red", "Did you mean '{tmp}/raw'?"),
        ("{tmp}/raw --faces rde", "Unknown face detector 'rde'. Did you mean 'red'?"),
        ("{tmp}/raw --faces red --face-model no.onnx", "There is no file no.onnx"),
        ("{tmp}/raw --faces red --faces.no_face error", "no face in train/sad/empty.png"),
        ("{tmp}/raw --faces red --faces.margin -1", "`faces.margin` must be greater than"),
        ("{tmp}/raw --faces red --unlabelled --source folder", "--unlabelled goes with neither"),
        ("{tmp}/raw --faces red --labels no.csv", "no.csv"),
    ],
)
def test_a_mistake_costs_a_sentence_and_code_2(words, told, raw, tmp_path, capsys):
    words = words.format(tmp=tmp_path).split()

    assert main([*words, "--output", str(tmp_path / "faces")]) == 2

    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    assert told.format(tmp=tmp_path) in said.err
