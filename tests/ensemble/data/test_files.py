"""Laws of files read from folders and archives."""

import os
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from configs.errors import DataError
from ensemble.data import files as files_module
from ensemble.data.files import is_image, open_files
from ensemble.data.location import find_missing
from ensemble.data.registry import Location


def write_folder(root: Path, contents: dict[str, bytes]) -> Path:
    for name, content in contents.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def write_zip(path: Path, contents: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return path


CONTENTS = {"a/1.png": b"one", "a/b/2.png": b"two", "notes.txt": b"text", "c/Zoë.png": b"three"}


def test_a_folder_and_its_archive_have_the_same_files(tmp_path):
    folder = open_files([write_folder(tmp_path / "data", CONTENTS)])
    archive = open_files([write_zip(tmp_path / "data.zip", CONTENTS)])

    assert folder.names() == archive.names() == sorted(CONTENTS)
    for name, content in CONTENTS.items():
        assert folder.read(name) == archive.read(name) == content


def test_what_systems_leave_behind_is_passed_over(tmp_path):
    names = (".DS_Store", "__MACOSX/a/._1.png", "a/Thumbs.db", ".git/x.png", "@eaDir/1.png")
    litter = dict.fromkeys((*names, "a/#recycle/2.png", ".thumbnails/x/1.png"), b"")

    for root in (
        write_folder(tmp_path / "data", CONTENTS | litter),
        write_zip(tmp_path / "data.zip", CONTENTS | litter),
    ):
        assert open_files([root]).names() == sorted(CONTENTS)


def test_names_of_several_roots_begin_with_the_root(tmp_path):
    first = write_folder(tmp_path / "first", {"x.png": b"1"})
    second = write_zip(tmp_path / "second.zip", {"x.png": b"2"})

    files = open_files([first, second, first])

    assert files.names() == ["first/x.png", "second.zip/x.png"]
    assert files.read("second.zip/x.png") == b"2"


def test_roots_of_the_same_name_stay_apart(tmp_path):
    roots = [write_folder(tmp_path / part / "faces", {"x.png": part.encode()}) for part in "ab"]

    files = open_files(roots)

    assert [files.read(name) for name in files.names()] == [b"a", b"b"]


def test_a_root_inside_another_is_refused(tmp_path):
    write_folder(tmp_path / "data", CONTENTS)

    with pytest.raises(DataError, match="lies inside"):
        open_files([tmp_path / "data", tmp_path / "data" / "a"])


def test_a_linked_folder_is_followed_once_and_a_loop_ends(tmp_path):
    elsewhere = write_folder(tmp_path / "elsewhere", {"1.png": b"1"})
    root = write_folder(tmp_path / "data", {"x.png": b"x"})
    (root / "linked").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(root)

    files = open_files([root])

    assert files.names() == ["linked/1.png", "x.png"]
    assert [problem.name for problem in files.problems] == ["linked/back"]


def test_a_broken_link_is_listed_and_fails_when_read(tmp_path):
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "circle.png").symlink_to(tmp_path / "circle.png")
    files = open_files([tmp_path])

    assert files.names() == ["circle.png", "gone.png"]
    for name in files.names():
        with pytest.raises(OSError, match=name):
            files.read(name)


def test_pipes_and_folders_with_names_of_images_are_no_files(tmp_path):
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")

    assert open_files([tmp_path]).names() == []


def test_a_name_that_is_not_utf8_is_a_problem(tmp_path):
    (tmp_path / os.fsdecode(b"Zo\xeb.png")).write_bytes(b"")
    files = open_files([tmp_path])

    assert files.names() == []
    assert [problem.reason for problem in files.problems] == ["its name is not UTF-8"]


@pytest.mark.parametrize("name", ["../out.png", "a/../../out.png", "/etc/out.png", "C:\\out.png"])
def test_an_entry_that_leaves_its_archive_is_refused(tmp_path, name):
    files = open_files([write_zip(tmp_path / "data.zip", {name: b"x", "in.png": b"y"})])

    assert files.names() == ["in.png"]
    assert [problem.reason for problem in files.problems] == ["its name leads out of the archive"]


def test_an_encrypted_entry_is_refused(tmp_path):
    path = write_zip(tmp_path / "data.zip", {"x.png": b"x"})
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1  # the flag in the central directory
    path.write_bytes(content)
    files = open_files([path])

    assert files.names() == []
    assert [problem.reason for problem in files.problems] == ["it is encrypted"]


def test_an_entry_too_large_to_unpack_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(files_module, "ENTRY_LIMIT", 10)
    files = open_files([write_zip(tmp_path / "data.zip", {"x.png": b"x" * 11, "y.png": b"y" * 10})])

    assert files.names() == ["y.png"]
    assert len(files.problems) == 1


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_the_later_of_two_entries_of_one_name_is_read(tmp_path):
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        archive.writestr("x.png", b"old")
        archive.writestr("x.png", b"new")
    files = open_files([tmp_path / "data.zip"])

    assert files.read("x.png") == b"new"
    assert [problem.name for problem in files.problems] == ["x.png"]


def test_backslashes_and_unflagged_utf8_in_an_archive_are_understood(tmp_path):
    path = write_zip(tmp_path / "data.zip", {"a\\Zoë.png": b"x"})
    content = path.read_bytes()
    for header, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = content.index(header) + flags
        content = content[:place] + b"\0\0" + content[place + 2 :]
    path.write_bytes(content)

    assert open_files([path]).names() == ["a/Zoë.png"]


def test_a_damaged_entry_fails_when_read(tmp_path):
    path = write_zip(tmp_path / "data.zip", {"x.png": b"content"})
    path.write_bytes(path.read_bytes().replace(b"content", b"CONTENT", 1))
    files = open_files([path])

    with pytest.raises(OSError, match="damaged"):
        files.read("x.png")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("broken.zip", "cannot be read as a .zip"),
        ("data.rar", "neither a folder nor a .zip"),
        ("brokn.zip", r"Did you mean '.*broken\.zip'"),
        ("nowhere/x.zip", "There is no file or folder"),
    ],
)
def test_a_root_that_cannot_be_read_is_one_sentence(tmp_path, name, message):
    (tmp_path / "broken.zip").write_bytes(b"PK no archive")
    (tmp_path / "data.rar").write_bytes(b"Rar!")

    with pytest.raises(DataError, match=message):
        open_files([tmp_path / name])


def test_an_archive_is_read_from_many_threads(tmp_path):
    contents = {f"{number}.png": bytes([number]) * 5000 for number in range(50)}
    files = open_files([write_zip(tmp_path / "data.zip", contents)])

    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(files.read, [*contents] * 4))

    assert read == [*contents.values()] * 4


def test_images_are_known_by_their_suffix():
    assert is_image("a/b.JPG")
    assert not is_image("a/b.txt")
    assert not is_image("jpg")


RUN = dict.fromkeys(("config.yaml", "environment.json", "samples.png"), b"")


@pytest.mark.parametrize(
    "written",
    [
        {f"runs/x/{name}": b"" for name in RUN},
        {"runs/search/search.yaml": b"", "runs/search/trials/0001/curves.png": b""},
        {"compared/comparison.csv": b"", "compared/comparison.txt": b"", "compared/c.png": b""},
        {"set/manifest.csv": b"", "set/left_out.csv": b"", "set/happy/1.png": b""},
        {"set/.journal.jsonl": b"", "set/happy/1.png": b""},
        {"found/predictions.csv": b"", "found/predictions.json": b"", "found/pictures/1.jpg": b""},
    ],
    ids=["run", "search", "comparison", "face set", "unfinished face set", "predictions"],
)
def test_outputs_of_commands_are_passed_over(tmp_path, written):
    for root in (
        write_folder(tmp_path / "data", CONTENTS | written),
        write_zip(tmp_path / "data.zip", CONTENTS | written),
    ):
        files = open_files([root])

        assert [name for name in files.names() if is_image(name)] == [
            name for name in sorted(CONTENTS) if is_image(name)
        ]
        assert "passed over" in " ".join(files.notes)
        assert "runs" not in next(iter(files.roots.values())).folders


def test_a_folder_that_a_run_wrote_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"was written by ensemble\.train"):
        open_files([write_folder(tmp_path / "run", RUN)])


def test_a_face_set_is_read_without_its_contact_sheet(tmp_path):
    contents = dict.fromkeys(("manifest.csv", "left_out.csv", "contact_sheet.png", "a/1.png"), b"")

    files = open_files([write_folder(tmp_path / "set", contents)])

    assert [name for name in files.names() if is_image(name)] == ["a/1.png"]


def test_photos_beside_their_predictions_are_read(tmp_path):
    contents = dict.fromkeys(
        ("predictions.csv", "predictions.json", "pictures/me.jpg", "me.jpg"), b""
    )

    for root in (write_folder(tmp_path / "photos", contents), tmp_path):
        images = [name for name in open_files([root]).names() if is_image(name)]
        assert [Path(name).name for name in images] == ["me.jpg"]
        assert not any("pictures" in name for name in images)


def test_paths_that_do_not_exist_are_named(tmp_path):
    data = write_folder(tmp_path / "data", {"deep/labels.csv": b""})

    assert find_missing(Location((data,), Path("labels.csv"))) == []
    assert find_missing(Location((data, data), data / "deep" / "labels.csv")) == []
    for location in (
        Location((tmp_path / "dat",)),
        Location((tmp_path / "dat", data)),
        Location((tmp_path / "dat",), data / "deep" / "labels.csv"),
    ):
        (sentence,) = find_missing(location)
        assert f"Did you mean '{data}'?" in sentence
    assert "no.csv" in find_missing(Location((data,), Path("no.csv")))[0]
