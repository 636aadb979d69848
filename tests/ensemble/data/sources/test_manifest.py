"""Laws of tables that name images and their labels."""

import os
import unicodedata
import zipfile
from pathlib import Path

import pytest

from configs.errors import DataError
from ensemble.data.registry import Collection, Location
from ensemble.data.sources.manifest import load, matches, read_column


def write(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


@pytest.fixture
def faces(tmp_path) -> Path:
    """A folder with two images and room for a table `faces.csv`."""
    write(tmp_path, "images/1.png", "images/2.png")
    return tmp_path


def read(folder: Path, table: str, *, encoding: str = "utf-8") -> Collection:
    (folder / "faces.csv").write_text(table, encoding)
    return load(Location((folder,)))


def labels(collection: Collection) -> dict[str, str]:
    return {record.name: record.label for record in collection.records}


BOTH = {"images/1.png": "happy", "images/2.png": "sad"}


@pytest.mark.parametrize(
    "table",
    [
        "path,label\nimages/1.png,happy\nimages/2.png,sad\n",
        "Filename;Emotion\nimages/1.png;happy\nimages/2.png;sad\n",
        "image\texpression\nimages/1.png\thappy\nimages/2.png\tsad\n",
        "\ufeffname,class\r\n1.png,happy\r\n\r\n2.png,sad",
        'id,file,label\n1,"images\\1.png",happy \n2,./images/2.png, sad\n',
    ],
)
def test_usual_headers_and_delimiters_are_understood(faces, table):
    assert labels(read(faces, table)) == BOTH


def test_a_table_is_found_as_root_beside_the_root_and_inside_it(faces):
    table = "path,label\nimages/1.png,happy\nimages/2.png,sad\n"
    inside = read(faces, table)
    as_root = load(Location((faces / "faces.csv",)))
    beside = load(Location((faces / "images",), labels=faces / "faces.csv"))

    assert labels(inside) == labels(as_root) == BOTH
    assert labels(beside) == {"1.png": "happy", "2.png": "sad"}


def test_a_table_inside_an_archive_is_found_and_can_be_named(tmp_path):
    path = tmp_path / "data.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data/a.csv", "path,label\nimages/1.png,happy\n")
        archive.writestr("data/b.csv", "path,label\n../data/images/1.png,sad\n")
        archive.writestr("data/images/1.png", b"")

    assert labels(load(Location((path,), labels=Path("b.csv")))) == {"data/images/1.png": "sad"}
    with pytest.raises(DataError, match=r"data/a\.csv, data/b\.csv. Name one with --labels"):
        load(Location((path,)))


def test_an_absolute_path_is_found_inside_a_root(faces, tmp_path_factory):
    table = tmp_path_factory.mktemp("elsewhere") / "faces.csv"
    table.write_text(f"path,label\n{faces}/images/1.png,happy\n/old/place/2.png,sad\n")

    assert labels(load(Location((faces,), labels=table))) == {"images/1.png": "happy"}


def test_split_group_and_weight_are_read(faces):
    table = "path,label,split,subject,weight\n1.png,happy,Valid,anna,0.5\n2.png,sad,,,\n"
    first, second = read(faces, table).records

    assert (first.split, first.group, first.weight) == ("validation", "anna", 0.5)
    assert (second.split, second.group, second.weight) == (None, None, 1.0)


def test_the_person_who_labelled_is_no_group(faces):
    (record,) = read(faces, "user.id,user,image,emotion\n7,7,1.png,happy\n").records

    assert record.group is None


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("3.png,happy,,", "there is no image '3.png'"),
        ("1.png,,,", "no label for '1.png'"),
        ("1.png", "no label for '1.png'"),
        (",happy,,", "no path"),
        ("1.png,happy,fold1,", "the split 'fold1' is neither train, validation nor test"),
        ("1.png,happy,,-1", "the weight '-1' is no number from 0 up"),
        ("1.png,happy,,nan", "the weight 'nan' is no number from 0 up"),
        ("1.png,happy,,much", "the weight 'much' is no number from 0 up"),
    ],
)
def test_a_bad_row_is_a_problem_with_its_number(faces, row, reason):
    collection = read(faces, f"path,label,split,weight\n2.png,sad,,\n{row}\n")

    assert labels(collection) == {"images/2.png": "sad"}
    assert [(problem.name, problem.reason) for problem in collection.problems] == [
        ("faces.csv:3", reason)
    ]


def test_an_image_that_stands_twice_is_kept_once(faces):
    collection = read(faces, "path,label\n1.png,happy\nimages/1.png,HAPPY\n2.png,sad\n")

    assert labels(collection) == BOTH
    assert [problem.name for problem in collection.problems] == ["faces.csv:3"]
    assert "duplicate row" in collection.problems[0].reason


def test_an_image_with_two_labels_is_left_out(faces):
    collection = read(faces, "path,label\n1.png,happy\n1.png,sad\n2.png,sad\n")

    assert labels(collection) == {"images/2.png": "sad"}
    assert [(problem.name, problem.reason) for problem in collection.problems] == [
        ("images/1.png", "has different labels: happy, sad")
    ]


def test_names_are_found_whatever_their_unicode_form(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "Zoë.png") for form in ("NFC", "NFD"))
    write(tmp_path, f"a/{decomposed}", "a/微笑.png")

    collection = read(tmp_path, f"path,label\na/{composed},happy\n微笑.png,sad\n")

    assert labels(collection) == {f"a/{decomposed}": "happy", "a/微笑.png": "sad"}


def test_a_file_name_of_several_images_is_ambiguous(faces):
    write(faces, "more/1.png")
    collection = read(faces, "path,label\n1.png,happy\n2.png,sad\nmore/1.png,sad\n")

    assert labels(collection) == {"images/2.png": "sad", "more/1.png": "sad"}
    assert [problem.reason for problem in collection.problems] == ["2 images could be '1.png'"]


def test_a_missing_file_never_takes_the_image_of_another_row(tmp_path):
    write(tmp_path, "test/1.png")
    collection = read(tmp_path, "path,label\ntrain/1.png,happy\ntest/1.png,sad\n")

    assert labels(collection) == {"test/1.png": "sad"}
    assert [problem.name for problem in collection.problems] == ["faces.csv:2"]


@pytest.mark.parametrize("root", ["", "faces.csv"])
@pytest.mark.parametrize("path", ["a/1.png", "a\\1.png", "./a/1.png", "/old/a/1.png"])
def test_a_missing_file_in_a_folder_takes_no_file_of_its_name(tmp_path, root, path):
    write(tmp_path, "b/1.png", "b/2.png")
    (tmp_path / "faces.csv").write_text(f"path,label\n{path},happy\nb/2.png,sad\n")

    collection = load(Location((tmp_path / root,)))

    assert labels(collection) == {"b/2.png": "sad"}
    assert [problem.name for problem in collection.problems] == ["faces.csv:2"]
    assert f"1 rows of faces.csv have no image, such as '{path}'" in collection.notes


@pytest.mark.parametrize("root", ["", "faces.csv"])
def test_images_found_by_name_alone_are_counted(faces, root):
    (faces / "faces.csv").write_text("path,label\n1.png,happy\n2.png,sad\n")

    collection = load(Location((faces / root,)))

    assert labels(collection) == BOTH
    assert collection.notes == [
        "2 images are found by their file name alone, in folders that faces.csv does not name"
    ]


def test_a_table_opens_only_the_files_that_it_names(faces, monkeypatch):
    write(faces, "more/3.png", "../elsewhere/4.png")
    table = "path,label\nimages/1.png,happy\n../elsewhere/4.png,sad\n"
    (faces / "faces.csv").write_text(table)
    monkeypatch.setattr(os, "walk", None)

    collection = load(Location((faces / "faces.csv",)))

    outside = (faces.parent / "elsewhere/4.png").as_posix()
    assert labels(collection) == {"images/1.png": "happy", outside: "sad"}
    assert not collection.notes
    assert {collection.images.read(name) for name in labels(collection)} == {b""}


def test_a_path_may_begin_with_the_name_of_the_root(faces, tmp_path_factory):
    table = tmp_path_factory.mktemp("elsewhere") / "faces.csv"
    table.write_text("path,label\nimages/1.png,happy\nimages/2.png,sad\n")

    collection = load(Location((faces / "images",), labels=table))

    assert labels(collection) == {"1.png": "happy", "2.png": "sad"}


def test_images_without_a_row_are_counted(faces):
    collection = read(faces, "path,label\nimages/1.png,happy\n")

    assert collection.notes == ["1 images without a valid row in faces.csv are ignored"]


def test_a_picture_of_the_data_beside_the_table_is_no_image_without_a_row(tmp_path):
    write(tmp_path, "train/1.png")
    write(tmp_path, "train/2.png")
    write(tmp_path, "sheet.png")

    collection = read(tmp_path, "path,label\ntrain/1.png,happy\n")

    assert collection.notes == ["1 images without a valid row in faces.csv are ignored"]


def test_a_table_that_is_not_utf8_is_refused_only_if_it_is_meant(faces):
    (faces / "notes.csv").write_text("größe\n", "latin-1")

    assert labels(read(faces, "path,label\n1.png,happy\n2.png,sad\n")) == BOTH
    with pytest.raises(DataError, match=r"'faces.csv' is not UTF-8"):
        read(faces, "path,label\n1.png,fröhlich\n", encoding="latin-1")


def test_a_table_without_labels_does_not_match(faces):
    (faces / "sizes.csv").write_text("path,width\n1.png,48\n")

    assert not matches(Location((faces,)))
    with pytest.raises(DataError, match="no CSV with the header path,label"):
        load(Location((faces,)))


def test_a_missing_table_has_its_near_miss(faces):
    (faces / "labels.csv").write_text("path,label\n1.png,happy\n")

    with pytest.raises(DataError, match=r"Did you mean '.*labels\.csv'"):
        load(Location((faces / "images",), labels=faces / "lables.csv"))


def test_faces8_is_tidied(shared_data):
    collection = load(Location((shared_data / "faces8_sample.zip",)))
    reasons = [problem.reason for problem in collection.problems]

    assert len(collection.records) == 400
    assert sum("duplicate row" in reason for reason in reasons) == 7
    assert sum("different labels" in reason for reason in reasons) == 1
    assert collection.notes == [
        "10 images without a valid row in faces8_sample/legend.csv are ignored",
        "409 images are found by their file name alone, in folders that "
        "faces8_sample/legend.csv does not name",
    ]


def test_a_column_is_read_by_image_and_its_first_row_counts(faces):
    rows = ["path,label,Sex", "images/1.png,happy,f", "images/1.png,happy,m", "none.png,sad,f"]
    (faces / "faces.csv").write_text("\n".join(rows))

    column = read_column(Location((faces,)), "sex")

    assert list(column.values()) == ["f"]
    assert load(Location((faces,))).records[0].name in column
    with pytest.raises(
        DataError, match=r"Unknown column of faces\.csv 'sexx'\. Did you mean 'sex'"
    ):
        read_column(Location((faces,)), "sexx")
