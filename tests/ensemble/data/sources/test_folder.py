"""Laws of class folders."""

from collections import Counter
from pathlib import Path

import pytest

from configs.errors import DataError
from ensemble.data.registry import Location
from ensemble.data.sources.folder import load, matches


def write(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


def read(*roots: Path) -> dict[str, tuple[str | None, str]]:
    collection = load(Location(roots))
    return {record.name: (record.split, record.label) for record in collection.records}


def test_class_folders_without_splits(tmp_path):
    write(tmp_path, "happy/1.png", "sad/2.png", "sad/deeper/3.png")

    assert matches(Location((tmp_path,)))
    assert read(tmp_path) == {
        "happy/1.png": (None, "happy"),
        "sad/2.png": (None, "sad"),
        "sad/deeper/3.png": (None, "sad"),
    }


@pytest.mark.parametrize("validation", ["val", "Valid", "VALIDATION"])
def test_class_folders_below_splits(tmp_path, validation):
    write(tmp_path, "Training/happy/1.png", f"{validation}/sad/2.png", "test/sad/3.png")

    assert read(tmp_path) == {
        "Training/happy/1.png": ("train", "happy"),
        f"{validation}/sad/2.png": ("validation", "sad"),
        "test/sad/3.png": ("test", "sad"),
    }


def test_folders_around_the_layout_are_passed_over(tmp_path):
    write(tmp_path, "faces/v2/train/happy/1.png", "faces/v2/val/happy/2.png", "faces/cover.png")

    assert set(read(tmp_path).values()) == {("train", "happy"), ("validation", "happy")}


def test_a_train_folder_alone_is_a_split(tmp_path):
    write(tmp_path, "train/happy/1.png", "train/sad/1.png")

    assert set(read(tmp_path).values()) == {("train", "happy"), ("train", "sad")}


def test_a_class_may_be_called_like_a_split(tmp_path):
    write(tmp_path, "test/1.png", "control/2.png")

    assert set(read(tmp_path).values()) == {(None, "test"), (None, "control")}


def test_roots_named_like_splits_are_splits(tmp_path):
    write(tmp_path, "train/happy/1.png", "train/sad/1.png", "val/happy/2.png", "val/sad/2.png")

    splits = Counter(split for split, _ in read(tmp_path / "train", tmp_path / "val").values())

    assert splits == {"train": 2, "validation": 2}
    assert {split for split, _ in read(tmp_path / "train").values()} == {None}


def test_what_is_ignored_is_counted(tmp_path):
    write(tmp_path, "happy/1.png", "sad/2.png", "sad/notes.txt", "cover.png")

    assert load(Location((tmp_path,))).notes == [
        "1 files that are no images are ignored",
        "1 images outside of class folders are ignored (./ 1)",
    ]


def test_ignored_folders_beside_splits_are_named(tmp_path):
    write(tmp_path, "train/happy/1.png", "train/sad/2.png", "fear/3.png", "fear/4.png")

    assert load(Location((tmp_path,))).notes == [
        "2 images outside of class folders are ignored (fear/ 2)"
    ]


@pytest.mark.parametrize("above", ["", "faces/", "train/"])
def test_an_empty_class_is_named(tmp_path, above):
    write(tmp_path, f"{above}happy/1.png", f"{above}sad/2.png")
    (tmp_path / above / "fear").mkdir()

    with pytest.raises(DataError, match=rf"Class 'fear' has no image in '{above}fear'"):
        load(Location((tmp_path,)))


def test_a_class_missing_in_one_split_only_is_fine(tmp_path):
    write(tmp_path, "train/happy/1.png", "train/sad/2.png", "val/sad/3.png")
    (tmp_path / "val" / "happy").mkdir()

    assert len(read(tmp_path)) == 3


def test_images_without_class_folders_are_no_such_layout(tmp_path):
    write(tmp_path, "FER2013Train/1.png", "FER2013Valid/2.png")
    write(tmp_path / "flat", "1.png")

    assert not matches(Location((tmp_path,)))
    assert not matches(Location((tmp_path / "flat",)))
    assert not matches(Location((tmp_path / "FER2013Train", tmp_path / "FER2013Valid")))


def test_labels_for_class_folders_are_refused(tmp_path):
    write(tmp_path, "happy/1.png", "sad/2.png")
    location = Location((tmp_path,), labels=tmp_path / "labels.csv")

    assert not matches(location)
    with pytest.raises(DataError, match="need no labels"):
        load(location)


def test_emotions3_has_its_1800_and_450_images(shared_data):
    collection = load(Location((shared_data / "emotions3_small.zip",)))

    assert Counter((record.split, record.label) for record in collection.records) == {
        (split, label): count
        for split, count in (("train", 600), ("validation", 150))
        for label in ("happy", "neutral", "sad")
    }
    assert not collection.problems
    assert not collection.notes
