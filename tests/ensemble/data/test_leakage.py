"""Laws of leakage: what is in two splits is found, and nothing else."""

import csv
import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from configs.errors import DataError
from ensemble.data.leakage import (
    check_no_duplicates,
    count_copies,
    describe_duplicates,
    duplicate_rows,
    find_duplicates,
    without_duplicates,
)
from ensemble.data.loading import Split
from ensemble.data.reading import inspect
from ensemble.data.synthetic_faces import EXPRESSIONS, draw_face
from ensemble.experiment import fit

FACES = 160


class Shelf:
    """Images in memory."""

    def __init__(self, images):
        self.images = images

    def read(self, name):
        return self.images[name]


def look(images):
    """Inspects images of one class, by name."""
    count = len(images)
    labels, weights = np.zeros(count, np.int32), np.ones(count, np.float32)
    return inspect(Split(Shelf(images), tuple(images), labels, weights, (None,) * count), 64)


def jpeg(pixels, quality):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return file.getvalue()


def resize(pixels, side):
    return np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC))


@pytest.fixture(scope="module")
def faces():
    return {
        f"{index}.png": draw_face(EXPRESSIONS[index % 8], np.random.default_rng([3, index]))
        for index in range(FACES)
    }


@pytest.fixture(scope="module")
def train(faces):
    return look(faces)


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


COPIES = {
    "the same": (lambda pixels: pixels.copy(), "exact"),
    "the same pixels in a file": (png, "exact"),
    "compressed": (lambda pixels: jpeg(pixels, 30), "near"),
    "half the size": (lambda pixels: resize(pixels, 48), "near"),
    "twice the size": (lambda pixels: resize(pixels, 192), "near"),
    "brighter": (lambda pixels: np.uint8(np.clip(pixels * 1.15, 0, 255)), "near"),
    "without its colours": (
        lambda pixels: np.asarray(Image.fromarray(pixels).convert("L")),
        "near",
    ),
    "mirrored": (lambda pixels: pixels[:, ::-1].copy(), "mirrored"),
    "mirrored and compressed": (lambda pixels: jpeg(pixels[:, ::-1].copy(), 60), "mirrored"),
    "mirrored, halved and compressed": (
        lambda pixels: jpeg(resize(pixels[:, ::-1].copy(), 48), 50),
        "mirrored",
    ),
}


@pytest.mark.parametrize("how", COPIES)
def test_planted_copies_are_found_and_hardly_anything_else(faces, train, how):
    change, kind = COPIES[how]
    repeats = find_duplicates(
        {"train": train, "validation": look({n: change(p) for n, p in faces.items()})}
    )
    found = {repeat.name for repeat in repeats if repeat.name == repeat.other_name}
    false_alarms = [repeat for repeat in repeats if repeat.name != repeat.other_name]

    assert len(found) >= 0.99 * FACES
    assert {r.kind for r in repeats if r.name == r.other_name} == {kind}
    assert len({repeat.other_name for repeat in false_alarms}) < 0.001 * FACES


def test_drawn_faces_are_all_different(train):
    halves = [train.select(range(start, FACES, 2)) for start in (0, 1)]

    assert [len(half.readable) for half in halves] == [FACES // 2, FACES // 2]
    assert find_duplicates(dict(zip(("train", "validation"), halves, strict=True))) == []


def test_of_a_thousand_faces_hardly_one_is_taken_for_another():
    drawn = [draw_face(EXPRESSIONS[n % 8], np.random.default_rng([5, n])) for n in range(1050)]
    small = {f"{number}.png": resize(pixels, 48) for number, pixels in enumerate(drawn)}
    names = list(small)
    train = {name: small[name] for name in names[:700]}
    held_out = {name: small[name] for name in names[700:]}
    planted = {name: jpeg(train[name][:, ::-1].copy(), 70) for name in names[:35]}
    repeats = find_duplicates({"train": look(train), "validation": look(held_out | planted)})
    alarms = [repeat for repeat in repeats if repeat.name != repeat.other_name]

    assert len(repeats) - len(alarms) >= 0.99 * len(planted)
    assert len(alarms) < 0.001 * len(drawn)


def test_the_same_drawing_in_other_colours_is_another_picture(faces, train):
    recoloured = {name: pixels[..., ::-1].copy() for name, pixels in faces.items()}
    repeats = find_duplicates({"train": train, "validation": look(recoloured)})

    assert len({repeat.name for repeat in repeats}) < 0.1 * FACES  # some drawings are nearly grey


def test_copies_within_a_split_are_counted(faces, train):
    assert count_copies(train) == 0
    assert count_copies(look({**faces, "a": faces["3.png"], "b": png(faces["3.png"])})) == 2


def test_pictures_of_one_grey_repeat_only_exactly():
    greys = {f"{value}": np.full((32, 32), value, np.uint8) for value in (0, 100, 200)}
    repeats = find_duplicates({"train": look(greys), "test": look({"x": greys["100"]})})

    assert list(duplicate_rows(repeats)) == [("100", "train", "x", "test", "exact")]


def test_dropping_takes_repeats_out_of_training_alone(faces, train):
    names = list(faces)
    held_out = look({"v": faces[names[3]], "w": draw_face("sad", np.random.default_rng(99))})
    test = look({"t": faces[names[5]][:, ::-1].copy(), "u": faces[names[3]]})
    parts = {"train": train, "validation": held_out, "test": test}
    repeats = find_duplicates(parts)
    kept = without_duplicates(train, repeats)

    assert set(names) - set(kept.readable.names) == {names[3], names[5]}
    assert len(kept.fingerprints) == len(kept.readable) == FACES - 2
    assert find_duplicates({**parts, "train": kept}) == [r for r in repeats if r.split != "train"]
    assert describe_duplicates(repeats) == (
        "1 validation image is also in train (1 exact); 2 test images are also in train "
        "(1 exact, 1 mirrored); 1 test image is also in validation (1 exact), "
        f"such as v as {names[3]}"
    )


def test_no_repeats_are_refused_only_where_there_are_some(faces, train):
    check_no_duplicates([])
    repeats = find_duplicates({"train": train, "test": look({"t": faces["0.png"]})})

    with pytest.raises(DataError, match=r"1 test image is also in train.*--duplicates drop"):
        check_no_duplicates(repeats)


@pytest.fixture
def leaking(make_config, colours_folder):
    """Settings whose data has two training images in validation, and three files more."""
    for label, number in (("blue", 0), ("red", 1)):
        for part, numbers in (("train", range(16)), ("val", [*range(16, 24), number])):
            folder = colours_folder.parent / "leaking" / part / label
            folder.mkdir(parents=True, exist_ok=True)
            for index in numbers:
                image = colours_folder / label / f"{index:02}.png"
                (folder / f"{index:02}.png").write_bytes(image.read_bytes())

    def make(policy):
        root = [colours_folder.parent / "leaking"]
        data = {"root": root, "duplicates": policy}
        return make_config(data=data, training={"epochs": 1})

    return make


@pytest.mark.parametrize(("policy", "trained"), [("warn", 32), ("drop", 30)])
def test_a_training_tells_of_leaks_and_drops_them_if_told_to(leaking, policy, trained, caplog):
    run = fit(leaking(policy)).run
    rows = (run.folder / "duplicates.csv").read_text().splitlines()
    split = (run.folder / "split.csv").read_text()

    assert [row.endswith("exact") for row in rows] == [False, True, True]
    assert split.count(",train,") == trained
    assert split.count(",validation,") == 18
    assert "2 validation images are also in train (2 exact)" in caplog.text
    assert "2 validation images are also in train" in (run.folder / "report.md").read_text()


def test_a_training_is_refused_where_leaks_are_errors(leaking):
    with pytest.raises(DataError, match="2 validation images are also in train"):
        fit(leaking("error"))


def test_all_copies_of_real_faces_are_found(shared_data):
    with (shared_data / "ferplus_labels.csv").open() as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    copies = {
        name: row["duplicate_of"]
        for name, row in rows.items()
        if row["split"] == "Training" and row["duplicate_of"]
    }
    twins = {
        name: row["duplicate_of"]
        for name, row in rows.items()
        if row["split"] == "PublicTest"
        and row["duplicate_of"]
        and rows[row["duplicate_of"]]["split"] == "Training"
    }

    def read(part, names):
        with zipfile.ZipFile(shared_data / f"ferplus_{part}.zip") as archive:
            paths = {path.rpartition("/")[2]: path for path in archive.namelist()}
            return look({name: archive.read(paths[name]) for name in names})

    parts = {"train": read("train", twins.values()), "validation": read("valid", twins)}
    exact = [repeat for repeat in find_duplicates(parts) if repeat.kind == "exact"]
    assert len(twins) == 279
    assert {repeat.other_name: repeat.name for repeat in exact} == twins
    assert count_copies(read("train", {*copies, *copies.values()})) == len(copies) == 1_224
