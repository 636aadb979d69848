"""Laws of datasets: classes become integers, and splits share nothing."""

import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from configs.errors import ConfigError, DataError
from ensemble.data.loading import Dataset, Split, load_dataset
from ensemble.data.registry import (
    SOURCES,
    Collection,
    DatasetSpec,
    Location,
    Problem,
    Record,
)
from ensemble.data.splits import find_split, resembles_split, sample_validation


class Nothing:
    """A store of no images: loading never reads one."""

    def read(self, name: str) -> bytes:
        raise AssertionError(f"{name} was read")


def load(records: list[Record], **options) -> Dataset:
    """Loads records through a source of their own."""
    collection = Collection(Nothing(), records, [Problem("x", "bad")], ["a note"])
    spec = DatasetSpec(
        name="records",
        summary="records of a test",
        matches=lambda _: True,
        load=lambda _: collection,
        priority=-1,
    )
    with SOURCES.temporary(spec):
        return load_dataset(Location(), **options)


def draw(split: str | None = None, **counts: int) -> list[Record]:
    """Returns records of as many images a class."""
    return [
        Record(f"{split}/{label}/{number}.png", label, split)
        for label, count in counts.items()
        for number in range(count)
    ]


def names_of(split: Split, dataset: Dataset) -> Counter:
    return Counter(dataset.classes[label] for label in split.labels)


def test_given_splits_are_kept():
    dataset = load([*draw("train", a=3, b=2), *draw("validation", a=1, b=1), *draw("test", a=1)])

    assert names_of(dataset.train, dataset) == {"a": 3, "b": 2}
    assert names_of(dataset.validation, dataset) == {"a": 1, "b": 1}
    assert dataset.test is not None
    assert names_of(dataset.test, dataset) == {"a": 1}
    assert "test has no image of b" in dataset.notes
    assert any(note.startswith("1 test images are set aside") for note in dataset.notes)


@pytest.mark.parametrize("fraction", [0.1, 0.2, 0.5])
def test_a_drawn_validation_has_its_share_of_every_class(fraction):
    dataset = load([*draw(a=100, b=20, c=2), *draw("test", a=1)], validation_fraction=fraction)

    assert names_of(dataset.validation, dataset) == {
        "a": 100 * fraction,
        "b": 20 * fraction,
        "c": 1,
    }
    assert not set(dataset.train.names) & set(dataset.validation.names)
    assert len(dataset.train) + len(dataset.validation) == 122


def test_the_draw_depends_on_the_seed_and_not_on_the_order_of_files():
    records = draw(a=40, b=40)
    shuffled = random.Random(0).sample(records, len(records))

    first, again, other = load(records), load(shuffled), load(records, seed=2)

    assert first.validation.names == again.validation.names
    assert first.validation.names != other.validation.names
    np.testing.assert_array_equal(first.train.labels, again.train.labels)


def test_a_fraction_without_effect_is_noted():
    records = [*draw("train", a=3, b=2), *draw("validation", a=1, b=1)]

    assert "the validation fraction of 0.3 has no effect" in " ".join(
        load(records, validation_fraction=0.3).notes
    )
    assert "no effect" not in " ".join(load(records).notes)


def test_a_drawn_validation_shares_no_group_and_leaves_every_class_to_train_on():
    records = [
        Record(f"{person}/{label}{number}.png", label, group=f"person {person}")
        for person in range(25)
        for label in "ab"
        for number in range(1 + person % 3)
    ]
    dataset = load([*records, Record("rare.png", "c", group="person 1"), Record("r.png", "c")])

    assert not set(dataset.train.groups) & set(dataset.validation.groups)
    assert set(dataset.train.labels) == {0, 1, 2}
    share = len(dataset.validation) / (len(dataset.validation) + len(dataset.train))
    assert 0.15 < share < 0.25


def test_large_groups_still_leave_something_for_validation():
    groups = ["a"] * 10 + ["b"] * 8
    drawn = sample_validation(np.zeros(18, np.int32), groups, 0.1, seed=1)

    assert np.flatnonzero(drawn).tolist() == list(range(10, 18))


def test_a_single_group_cannot_be_split():
    with pytest.raises(DataError, match="without splitting a group"):
        sample_validation(np.array([0, 1, 0, 1]), ["x"] * 4, 0.5, seed=1)


def test_a_group_in_two_given_splits_is_refused():
    records = [
        *draw("train", a=2, b=2),
        *draw("validation", a=2, b=2),
        Record("1.png", "a", "train", group="anna"),
        Record("2.png", "a", "validation", group="anna"),
    ]
    others = [
        Record(f"{part}.png", "a", part, group="bert") for part in ("train", "validation", "test")
    ]

    with pytest.raises(DataError, match=r"Group 'anna' has images in train and in validation\. "):
        load(records)
    with pytest.raises(DataError, match="validation, and 1 more cross splits too"):
        load([*records, *others])


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([], r"no labelled image in no data, read as records \(x: bad; a note\)"),
        (draw(a=5), "Two classes are needed"),
        (draw(a=5, b=1), "Class 'b' has a single training image"),
        ([*draw("train", a=5), *draw("validation", a=1, b=1)], "Class 'b' has no training image"),
        (draw("validation", a=5, b=5), "images for validation only, none to train on"),
        (draw("test", a=5, b=5), "images for test only, none to train on"),
    ],
)
def test_what_cannot_be_trained_on_is_refused(records, message):
    with pytest.raises(DataError, match=message):
        load(records)


def test_classes_decide_on_labels_and_what_is_left_out_is_counted():
    dataset = load(draw(a=5, b=5, c=5, d=3), classes=["c", "x"], merge={"x": ["a", "d"]})

    assert dataset.classes == ("c", "x")
    assert names_of(dataset.train, dataset) + names_of(dataset.validation, dataset) == {
        "c": 5,
        "x": 8,
    }
    assert "5 images of other classes are left out: b 5" in dataset.notes


def test_a_misspelt_class_has_its_near_miss():
    with pytest.raises(DataError, match=r"Unknown class 'hapy'\. Did you mean 'happy'"):
        load(draw(happy=5, sad=5), classes=["hapy", "sad"])


def test_rows_stay_together_when_they_are_selected():
    records = [Record(f"{n}.png", "ab"[n % 2], "train", f"g{n}", n / 10) for n in range(10)]
    split = load([*records, *draw("validation", a=1, b=1)]).train
    chosen = split.select(np.array([7, 2]))

    assert len(chosen) == 2
    assert chosen.names == ("7.png", "2.png")
    assert chosen.groups == ("g7", "g2")
    assert chosen.labels.tolist() == [1, 0]
    np.testing.assert_allclose(chosen.weights, [0.7, 0.2])
    assert (chosen.labels.dtype, chosen.weights.dtype) == (np.int32, np.float32)
    assert len(split.select([])) == 0


def test_problems_and_notes_of_the_source_are_passed_on():
    dataset = load(draw(a=5, b=5))

    assert dataset.problems == [Problem("x", "bad")]
    assert dataset.notes[0] == "a note"
    assert dataset.name == "records"


def write(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


def test_the_layout_is_found_by_looking(tmp_path):
    images = [f"{label}/{number}.png" for label in ("happy", "sad") for number in range(5)]
    folder = write(tmp_path / "my faces", *images)
    by_folder = load_dataset(Location((folder,)))
    table = tmp_path / "my faces" / "faces.csv"
    table.write_text("\n".join(["path,label", *(f"{name},{name[:3]}" for name in images)]))
    by_table = load_dataset(Location((table,)))
    by_table_in_folder = load_dataset(Location((folder,)))

    assert (by_folder.name, by_folder.classes) == ("my-faces", ("happy", "sad"))
    assert (by_table.name, by_table.classes) == ("faces", ("hap", "sad"))
    assert by_table_in_folder.classes == ("hap", "sad")
    assert load_dataset(Location((folder,)), source="folder").classes == ("happy", "sad")


def test_images_without_any_layout_are_told_the_known_ones(tmp_path):
    write(tmp_path, "1.png", "2.png")

    with pytest.raises(DataError, match=r"No known layout fits .* manifest \(a CSV with path"):
        load_dataset(Location((tmp_path,)))


def test_an_empty_folder_is_refused(tmp_path):
    for source in ("auto", "folder"):
        with pytest.raises(DataError, match=str(tmp_path)):
            load_dataset(Location((tmp_path,)), source=source)


def test_an_unknown_source_has_its_near_miss():
    with pytest.raises(ConfigError, match="Did you mean 'folder'"):
        load_dataset(Location(), source="foldr")


@pytest.mark.parametrize(
    ("word", "split"),
    [
        *(("Training", "train"), ("val", "validation"), ("PrivateTest ", "test"), ("fold1", None)),
        *(("train_set", "train"), ("TrainingSet", "train"), ("train-1", "train")),
        *(("01_train", "train"), ("FER2013Train", "train"), ("trainimages", "train")),
        *(("val_images", "validation"), ("PublicTest", "validation"), ("dev", "validation")),
        *(("validate", "validation"), ("holdout", "test")),
        *(("testing", "test"), ("Test Data", "test"), ("contest", None), ("training_v2", None)),
    ],
)
def test_words_for_splits(word, split):
    assert find_split(word) == split


@pytest.mark.parametrize(
    "word", ["train_v2", "trainval", "my test", "eval", "evaluation", "TrainCropped"]
)
def test_names_with_a_word_for_a_split_resemble_one(word):
    assert resembles_split(word)


@pytest.mark.parametrize(
    "word",
    [
        *("happy", "contest", "protest", "valley", "value", "devil"),
        "test_tube",
        "training_shoes",
        "trainer",
    ],
)
def test_other_names_resemble_no_split(word):
    assert not resembles_split(word)


def test_faces8_has_eight_classes_of_fifteen_spellings(shared_data):
    dataset = load_dataset(Location((shared_data / "faces8_sample.zip",)))

    assert len(dataset.classes) == 8
    assert "15 spellings are read as 8 classes without regard to case" in dataset.notes
    counts = names_of(dataset.train, dataset) + names_of(dataset.validation, dataset)
    assert sorted(counts.values()) == [4, 10, 60, 60, 60, 66, 70, 70]


def test_ferplus_is_found_by_its_votes_and_reads_usual_names(shared_data):
    location = Location(
        (shared_data / "ferplus_train.zip", shared_data / "ferplus_valid.zip"),
        labels=shared_data / "fer2013new.csv",
    )
    dataset = load_dataset(location, classes=["neutral", "happy", "sad"])

    assert names_of(dataset.train, dataset) == {"neutral": 8739, "happy": 7287, "sad": 3013}
    assert len(dataset.validation) == 1182 + 865 + 351


@pytest.mark.parametrize("command", ["train", "extract"])
def test_data_that_is_missing_fails_before_a_backend_loads(command, tmp_path):
    script = (
        f"import sys, ensemble.commands.{command}.__main__ as command\n"
        f"code = command.main(['--data', {str(tmp_path / 'nowhere')!r}, '--weights', 'random'])\n"
        "print(code, sorted({'keras', 'scipy', 'tensorflow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)

    assert done.stdout == "2 []\n"
    assert f"There is no file or folder '{tmp_path / 'nowhere'}'" in done.stderr
