"""Public layouts of data sets: each is read right, or refused with the flag that decides."""

import io
import json
from collections import Counter
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from configs.errors import DataError
from ensemble.data.loading import find_source, load_collection, load_dataset
from ensemble.data.registry import Location

Contents = dict[str, str | bytes]


class Layout(NamedTuple):
    """A layout, its files, and what is read from it: split and class to the number of images."""

    files: Contents
    source: str
    counts: dict[tuple[str | None, str], int]
    groups: Collection[str] = ()


def images(*folders: str, count: int = 2, ending: str = "png") -> Contents:
    return {f"{folder}/{number}.{ending}": b"" for folder in folders for number in range(count)}


def split_folders(train: str, other: str) -> Contents:
    """Returns three images of each of two classes to train on, and one of each beside them."""
    classes = ("happy", "sad")
    return {
        **images(*(f"{train}/{name}" for name in classes), count=3),
        **images(*(f"{other}/{name}" for name in classes), count=1),
    }


def two_splits(other: str) -> dict[tuple[str | None, str], int]:
    counts = {"train": 3, other: 1}
    return {(s, name): count for s, count in counts.items() for name in ("happy", "sad")}


def lines(*rows: str) -> str:
    return "\n".join(rows) + "\n"


def named(names: Iterable[str]) -> Contents:
    return dict.fromkeys(names, b"")


def npy(code: str) -> bytes:
    file = io.BytesIO()
    np.save(file, np.array(code))
    return file.getvalue()


PIXELS = " ".join(["7"] * 4)
VOTES = "neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"
RAF = {"train_00001": 4, "train_00002": 5, "test_0001": 4, "test_0002": 1}
RAF_COUNTS = {
    ("train", "happiness"): 1,
    ("train", "sadness"): 1,
    ("test", "happiness"): 1,
    ("test", "surprise"): 1,
}

SPLITS = {
    f"{train} and {other}": Layout(split_folders(train, other), "folder", two_splits(split))
    for train, other, split in (
        ("train", "val", "validation"),
        ("Training", "PublicTest", "validation"),
        ("TRAIN", "Valid", "validation"),
        ("train_set", "test_set", "test"),
        ("TrainingSet", "ValidationSet", "validation"),
        ("train_images", "val_images", "validation"),
        ("trainset", "testset", "test"),
        ("training-data", "testing data", "test"),
        ("train1", "dev", "validation"),
        ("01_train", "02_test", "test"),
        ("FER2013Train", "FER2013Valid", "validation"),
        ("dataset/archive/train", "dataset/archive/test", "test"),
        ("train/images", "test/images", "test"),
        ("train/train", "test/test", "test"),
    )
}

READ = SPLITS | {
    "keras image_dataset_from_directory": Layout(
        images("main/happy", "main/sad", ending="jpg"),
        "folder",
        {(None, "happy"): 2, (None, "sad"): 2},
    ),
    "torchvision ImageFolder": Layout(
        images("root/happy/deep", "root/sad", ending="webp"),
        "folder",
        {(None, "happy"): 2, (None, "sad"): 2},
    ),
    "splits in class folders": Layout(
        images("happy/train", "sad/train", "happy/test", "sad/test"),
        "folder",
        {(s, name): 2 for s in ("train", "test") for name in ("happy", "sad")},
    ),
    "two numbered training folders": Layout(
        images("train1/happy", "train2/happy", "train1/sad", "train2/sad", "test/sad"),
        "folder",
        {("train", "happy"): 4, ("train", "sad"): 4, ("test", "sad"): 2},
    ),
    "what network drives leave behind": Layout(
        images("happy", "sad", "@eaDir/x", "#recycle", ".thumbnails", "__MACOSX", "happy/@eaDir"),
        "folder",
        {(None, "happy"): 2, (None, "sad"): 2},
    ),
    "runs beside the images": Layout(
        images("happy", "sad", "runs/x/errors", "runs/y")
        | named(("runs/x/config.yaml", "runs/x/environment.json", "runs/y/search.yaml")),
        "folder",
        {(None, "happy"): 2, (None, "sad"): 2},
    ),
    "folders of persons": Layout(
        images("S001/happy", "S001/sad", "S002/happy"),
        "subjects",
        {(None, "happy"): 4, (None, "sad"): 2},
        {"S001", "S002"},
    ),
    "persons in class folders": Layout(
        images("happy/S001", "sad/S001", "happy/S002"),
        "folder",
        {(None, "happy"): 4, (None, "sad"): 2},
        {"S001", "S002"},
    ),
    "folders of persons and a table": Layout(
        images("images/S001", "images/S002")
        | {
            "labels.csv": lines(
                "path,label,split",
                "images/S001/0.png,happy,train",
                "images/S001/1.png,sad,train",
                "images/S002/0.png,sad,val",
            )
        },
        "manifest",
        {("train", "happy"): 1, ("train", "sad"): 1, ("validation", "sad"): 1},
    ),
    "Kaggle FER2013": Layout(
        {
            "fer2013.csv": lines(
                "emotion,pixels,Usage",
                f"0,{PIXELS},Training",
                f"3,{PIXELS},PublicTest",
                f"6,{PIXELS},PrivateTest",
            )
        },
        "fer2013",
        {("train", "angry"): 1, ("validation", "happy"): 1, ("test", "neutral"): 1},
    ),
    "Kaggle FER2013 in folders": Layout(
        images("train/angry", "train/happy", "test/angry", "test/happy", ending="jpg"),
        "folder",
        {(s, name): 2 for s in ("train", "test") for name in ("angry", "happy")},
    ),
    "FER+": Layout(
        named(("FER2013Train/fer1.png", "FER2013Valid/fer2.png"))
        | {
            "fer2013new.csv": lines(
                f"Usage,Image name,{VOTES}",
                "Training,fer1.png,9,0,0,0,0,0,0,0,0,0",
                "PublicTest,fer2.png,0,9,0,0,0,0,0,0,0,0",
            )
        },
        "ferplus",
        {("train", "neutral"): 1, ("validation", "happiness"): 1},
    ),
    "RAF-DB": Layout(
        named(f"basic/Image/aligned/{name}_aligned.jpg" for name in RAF)
        | named(f"basic/Image/original/{name}.jpg" for name in RAF)
        | {
            "basic/EmoLabel/list_patition_label.txt": lines(
                *(f"{name}.jpg {code}" for name, code in RAF.items())
            )
        },
        "rafdb",
        RAF_COUNTS,
    ),
    "RAF-DB in numbered folders": Layout(
        named(
            f"DATASET/{name.partition('_')[0]}/{code}/{name}_aligned.jpg"
            for name, code in RAF.items()
        )
        | {"train_labels.csv": "image,label\n", "test_labels.csv": "image,label\n"},
        "rafdb",
        RAF_COUNTS,
    ),
    "AffectNet tables": Layout(
        images("Manually_Annotated_Images/1", "Manually_Annotated_Images/2", ending="jpg")
        | {
            "training.csv": lines(
                "subDirectory_filePath,face_x,expression,valence",
                "1/0.jpg,4,0,0.1",
                "1/1.jpg,4,7,0.1",
                "2/1.jpg,4,10,-2",
            ),
            "validation.csv": lines(
                "subDirectory_filePath,face_x,expression,valence", "2/0.jpg,4,6,0.3"
            ),
        },
        "affectnet",
        {("train", "neutral"): 1, ("train", "contempt"): 1, ("validation", "anger"): 1},
    ),
    "AffectNet annotations": Layout(
        images("train_set/images", "val_set/images", ending="jpg")
        | {
            "train_set/annotations/0_exp.npy": npy("0"),
            "train_set/annotations/1_exp.npy": npy("1"),
            "train_set/annotations/1_val.npy": npy("0.5"),
            "val_set/annotations/0_exp.npy": npy("7"),
        },
        "affectnet",
        {("train", "neutral"): 1, ("train", "happiness"): 1, ("validation", "contempt"): 1},
    ),
    "AffectNet folders": Layout(
        images(*(f"affectnet/{s}/{code}" for s in ("train", "val") for code in (0, 3))),
        "affectnet",
        {(s, n): 2 for s in ("train", "validation") for n in ("neutral", "surprise")},
    ),
    "CK+": Layout(
        named(
            f"cohn-kanade-images/{s}/00{k}/{s}_00{k}_0000000{frame}.png"
            for s in ("S005", "S010")
            for k in (1, 2)
            for frame in (1, 2)
        )
        | {
            "Emotion/S005/001/S005_001_00000002_emotion.txt": "   3.0000000e+00\n",
            "Emotion/S010/002/S010_002_00000002_emotion.txt": "   7.0000000e+00\n",
        },
        "ckplus",
        {(None, "disgust"): 1, (None, "surprise"): 1},
        {"S005", "S010"},
    ),
    "CK+ in class folders": Layout(
        named(("CK+48/anger/S010_004_00000017.png", "CK+48/happy/S011_006_00000011.png")),
        "ckplus",
        {(None, "anger"): 1, (None, "happy"): 1},
        {"S010", "S011"},
    ),
    "Hugging Face imagefolder with metadata.csv": Layout(
        images("train", "test")
        | {
            "train/metadata.csv": lines("file_name,label", "0.png,happy", "1.png,sad"),
            "test/metadata.csv": lines("file_name,label", "0.png,happy"),
        },
        "imagefolder",
        {("train", "happy"): 1, ("train", "sad"): 1, ("test", "happy"): 1},
    ),
    "Hugging Face imagefolder with metadata.jsonl": Layout(
        images("data/train", "data/validation")
        | {
            "data/metadata.jsonl": lines(
                '{"file_name": "train/0.png", "label": "happy"}',
                '{"file_name": "validation/1.png", "label": "sad"}',
            )
        },
        "imagefolder",
        {("train", "happy"): 1, ("validation", "sad"): 1},
    ),
    "JAFFE": Layout(
        named(("jaffe/KA.AN1.39.tiff", "jaffe/KA.HA2.30.tiff", "jaffe/YM.NE1.49.tiff")),
        "jaffe",
        {(None, "anger"): 1, (None, "happiness"): 1, (None, "neutral"): 1},
        {"KA", "YM"},
    ),
}

REFUSED = {
    "copies of the data": (
        images(*(f"{c}/{s}/happy" for c in ("aligned", "original") for s in ("train", "test"))),
        "Give one of them as --data.*--source folder",
    ),
    "unknown names of splits": (split_folders("learn", "exam"), "--source folder.*--source subj"),
    "splits with an addition": (split_folders("train_v2", "test_v2"), "--source folder"),
    "a split with an addition": (
        split_folders("train", "test") | images("train_augmented/happy"),
        "'train_augmented' is called like a split.*--source folder",
    ),
    "classes again in a class": (images("happy", "sad", "mixed/happy"), "--source folder"),
    "a class that may be a split": (images("control", "test"), "--source folder"),
    "a class that may be the training split": (
        images("train", "bus", "car"),
        "'train' is called like a split.*--source folder",
    ),
    "persons alone": (images("S001", "S002"), "--labels.*--source folder"),
    "persons with unknown emotions": (
        images("S001/one", "S002/one", "S001/two"),
        "--source folder.*--source subjects",
    ),
    "numbered folders beside a table": (
        images("1", "2") | {"training.csv": "file_id;code\n"},
        r"training\.csv.*--source folder",
    ),
    "folders beside an unknown table": (
        images("aligned", "original") | {"labels.csv": "file_id;code\n"},
        r"labels\.csv.*--source folder",
    ),
    "folders beside a table without a header": (
        images("aligned", "original") | {"list.csv": "0.png,happy\n1.png,sad\n"},
        r"list\.csv.*--source folder",
    ),
    "AffectNet's table without a header": (
        images("1")
        | {
            "training.csv": "subDirectory_filePath,expression\n1/0.png,0\n",
            "validation.csv": "1/1.png,1\n",
        },
        r"'validation\.csv' has as many columns as training\.csv, but no header",
    ),
    "development and evaluation": (split_folders("dev", "eval"), "--source folder"),
    "folders of codes": (
        images(*(f"train/{code}" for code in range(8))),
        "--source affectnet.*--source folder",
    ),
    "two tables": (
        images("pictures") | {"a.csv": "path,label\n", "b.csv": "path,label\n"},
        "--labels",
    ),
}


def write(root: Path, contents: Contents) -> Location:
    for name, content in contents.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return Location((root,))


@pytest.mark.parametrize("name", READ)
def test_public_layouts_are_read(name, tmp_path):
    layout = READ[name]
    location = write(tmp_path, layout.files)

    spec = find_source(location)

    assert spec is not None
    assert spec.name == layout.source
    records = load_collection(location, spec).records
    assert Counter((record.split, record.label) for record in records) == layout.counts
    assert {record.group for record in records if record.group} == set(layout.groups)


@pytest.mark.parametrize("name", REFUSED)
def test_doubtful_layouts_are_refused_with_the_flag_that_decides(name, tmp_path):
    contents, pattern = REFUSED[name]

    with pytest.raises(DataError, match=pattern):
        load_dataset(write(tmp_path, contents))


def test_a_class_may_be_called_like_a_split_where_the_source_is_given(tmp_path):
    location = write(tmp_path, images("train", "bus", "car"))

    assert load_dataset(location, source="folder").classes == ("bus", "car", "train")


def test_a_table_that_names_no_image_does_not_decide_the_classes(tmp_path):
    rows = "".join(f"{epoch},0.5\n" for epoch in range(2))
    contents = images("bus", "car") | {"results.csv": f"epoch,loss\n{rows}"}

    assert load_dataset(write(tmp_path, contents)).classes == ("bus", "car")


def test_thumbnails_are_not_a_class(tmp_path):
    location = write(tmp_path, images("bus", "car", "thumbnails", "car/thumbs"))
    dataset = load_dataset(location)

    assert dataset.classes == ("bus", "car")
    assert len(dataset.train) + len(dataset.validation) == 4
    assert any("thumbnails" in note for note in dataset.notes)


@pytest.mark.parametrize("name", ["train_v2,test_v2", "train,test_v2"])
def test_roots_that_resemble_splits_are_refused(name, tmp_path):
    roots = [tmp_path / part for part in name.split(",")]
    write(tmp_path, images(*(f"{root.name}/{c}" for root in roots for c in ("happy", "sad"))))

    with pytest.raises(DataError, match=r"'test_v2'.*called like a split"):
        load_dataset(Location(tuple(roots)))


def test_parquet_with_image_bytes_is_read(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    features = {"label": {"_type": "ClassLabel", "names": ["happy", "sad"]}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    rows = {"image": [{"bytes": b"a", "path": "1"}, {"bytes": b"b", "path": "2"}], "label": [0, 1]}
    (tmp_path / "data").mkdir()
    for name in ("train", "test"):
        path = tmp_path / "data" / f"{name}-00000-of-00001.parquet"
        parquet.write_table(pyarrow.table(rows).replace_schema_metadata(metadata), path)

    for location in (Location((tmp_path,)), Location(tuple(sorted(path.parent.iterdir())))):
        spec = find_source(location)
        assert spec is not None
        assert spec.name == "parquet"
        collection = load_collection(location, spec)
        found = {(r.split, r.label): collection.images.read(r.name) for r in collection.records}
        assert found == {
            ("train", "happy"): b"a",
            ("train", "sad"): b"b",
            ("test", "happy"): b"a",
            ("test", "sad"): b"b",
        }


@pytest.mark.parametrize(
    ("contents", "found"),
    [
        ({**images("flat", count=3), "0.png": b""}, r"4 images .*3 in 'flat'.*no table.*--labels"),
        (images("."), "2 images .*the folder itself.*no labels.*--labels"),
        (
            images("faces") | {"people.csv": "image,age\n"},
            r"'people\.csv' with the columns image, age.*lacks a column called label.*--labels",
        ),
        ({"video.mp4": b"", "notes.doc": b""}, r"no image.*1 \.mp4.*--data"),
        (
            images("runs/x") | named(("runs/x/config.yaml", "runs/x/environment.json")),
            r"no image.*'runs/x' is passed over: ensemble\.train wrote it",
        ),
    ],
    ids=["one folder", "flat", "half a table", "no image", "a run"],
)
def test_an_unknown_layout_is_reported_with_what_was_found(contents, found, tmp_path):
    with pytest.raises(DataError, match=rf"No known layout fits.*{found}"):
        load_dataset(write(tmp_path, contents))
