import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from configs.errors import DataError
from ensemble.commands.predict.photos import Photo, find_photos, read_frames
from ensemble.data.decoding import ImageError
from ensemble.data.registry import Location
from ensemble.data.sources import manifest


@pytest.fixture
def party(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder, which is the working one, with photos here and below."""
    for name in ("a.png", "b.jpg", "deep/c.png"):
        path = tmp_path / "party" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), "red").save(path)
    (tmp_path / "party" / "notes.txt").write_text("no photo")
    monkeypatch.chdir(tmp_path)
    return Path("party")


def names(*words: str) -> list[str]:
    return [photo.name for photo in find_photos(words)]


def test_folders_patterns_and_files_are_listed_in_order(party):
    assert names("party") == ["party/a.png", "party/b.jpg", "party/deep/c.png"]
    assert names("party/*.png") == ["party/a.png"]
    assert names("party/**/*.png") == ["party/a.png", "party/deep/c.png"]
    assert names(f"{Path.cwd()}/party/*.jpg") == [f"{Path.cwd()}/party/b.jpg"]
    assert names("party/b.jpg", "party/a.png") == ["party/b.jpg", "party/a.png"]
    assert names("party/notes.txt") == ["party/notes.txt"]  # asked for by name: told when read


def test_photos_in_an_archive_are_read_where_they_lie(party):
    with zipfile.ZipFile("party.zip", "w") as archive:
        for name in ("a.png", "deep/c.png"):
            archive.write(party / name, name)
        archive.writestr("notes.txt", "no photo")
    photos = find_photos(["party.zip"])

    assert [photo.name for photo in photos] == ["party.zip/a.png", "party.zip/deep/c.png"]
    assert [source for _, source in read_frames(photos)] == [
        (party / name).read_bytes() for name in ("a.png", "deep/c.png")
    ]


def encrypt(archive: Path, name: str) -> None:
    """Marks an entry of an archive as encrypted."""
    data = bytearray(archive.read_bytes())
    for header, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        place = data.find(header)
        while data[place:].find(name.encode()) > 46 + len(name):
            place = data.find(header, place + 1)
        data[place + flags] |= 1
    archive.write_bytes(data)


def test_what_is_not_taken_is_counted_with_the_reasons(party, caplog):
    with zipfile.ZipFile("party.zip", "w") as archive:
        archive.write(party / "a.png", "locked.png")
        archive.write(party / "a.png", "open.jfif")
        archive.writestr("clip.mp4", "film")
        archive.writestr("clip.mov", "film")
    encrypt(Path("party.zip"), "locked.png")

    assert names("party.zip", "party") == [
        "party.zip/open.jfif",
        *("party/a.png", "party/b.jpg", "party/deep/c.png"),
    ]
    assert caplog.messages == [
        "skipped 4 files: video inside an archive (2), it is encrypted (1), not an image (1)"
    ]


def test_every_readable_type_is_listed(party):
    for name in ("a.jfif", "b.JPE", "c.avif", "d.HEIC", "e.mp4"):
        (party / "types" / name).parent.mkdir(exist_ok=True)
        (party / "types" / name).write_bytes(b"x")

    assert len(names("party/types")) == 5


def test_a_name_that_is_not_utf_8_is_counted_or_shown_so_that_it_can_be_written(party, caplog):
    odd = os.fsdecode(b"party/caf\xe9.png")
    (party / "a.png").rename(odd)

    assert "party/a.png" not in names("party")
    assert "its name is not UTF-8 (1)" in caplog.text
    for word in (odd, "party/caf*.png"):
        (photo,) = find_photos([word])
        assert photo.name.encode()
        assert photo.source.read_bytes()


def test_former_output_is_never_input(party, caplog):
    pictures = party / "answers" / "pictures"
    pictures.mkdir(parents=True)
    (party / "a.png").rename(pictures / "a.png")
    for table in ("predictions.csv", "predictions.json"):
        (pictures.parent / table).touch()

    with caplog.at_level("INFO"):
        assert names("party") == ["party/b.jpg", "party/deep/c.png"]
        assert names("party/**/*.png") == ["party/deep/c.png"]

    assert "'answers/pictures' is passed over: ensemble.predict wrote it" in caplog.text
    assert "skipped 1 file: written by ensemble.predict (1)" in caplog.messages


def test_an_archive_without_photos_is_refused(party):
    with zipfile.ZipFile("notes.zip", "w") as archive:
        archive.write(party / "notes.txt", "notes.txt")

    with pytest.raises(DataError, match=r"no image in 'notes\.zip', as 1 file: not an image \(1\)"):
        find_photos(["notes.zip"])


def test_a_table_names_photos_relative_to_itself_or_to_here(party):
    (party / "list.csv").write_text("id,Path\n1,a.png\n2,party/b.jpg\n3,gone.png\n4,\n")

    assert find_photos(["party/list.csv"]) == [
        Photo("a.png", party / "a.png"),
        Photo("party/b.jpg", Path("party/b.jpg")),
        Photo("gone.png", party / "gone.png"),
    ]


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("t.csv", "file_name;label\nsub\\d.png;sad"),
        ("t.tsv", "Image Path\tlabel\nsub/d.png\tsad"),
        ("t.jsonl", '{"file_name": "./sub/d.png"}'),
        ("t.csv", "image,label\nd.png,sad"),
    ],
)
def test_tables_that_are_trained_on_can_be_predicted(party, name, table):
    (party / "sub").mkdir()
    (party / "sub/d.png").write_bytes(b"")
    (party / name).write_text(table)
    location = Location((party / name,))

    (photo,) = find_photos([f"party/{name}"])

    assert photo.source == party / "sub/d.png"
    if "label" in table:
        assert [record.name for record in manifest.load(location).records] == ["sub/d.png"]


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("partyy", "There is no file or folder 'partyy'. Did you mean 'party'?"),
        ("party/*.gif", "No image and no video is called like 'party/*.gif'"),
        ("empty", "There is no image in 'empty'"),
        ("labels.csv", "needs a column `path`. Its columns: who, what"),
        ("none.csv", "names no photo"),
        ("binary.csv", "'binary.csv' is not UTF-8 text"),
    ],
)
def test_what_names_no_photo_is_told(party, word, told):
    Path("empty").mkdir()
    Path("labels.csv").write_text("who,what\nme,happy\n")
    Path("none.csv").write_text("path\n\n")
    Path("binary.csv").write_bytes(b"path\n\xff\xfe\n")

    with pytest.raises(DataError) as caught:
        find_photos([word])

    assert told in str(caught.value)


def test_of_a_video_every_so_many_frames_are_looked_at(tmp_path):
    cv2 = pytest.importorskip("cv2")
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    for number in range(7):
        frame = np.zeros((48, 64, 3), np.uint8)
        frame[..., 2] = 30 * number  # OpenCV's order is BGR
        writer.write(frame)
    writer.release()

    frames = list(read_frames([Photo("clip.avi", path)], every=3))

    assert [name for name, _ in frames] == ["clip.avi#0", "clip.avi#3", "clip.avi#6"]
    for (_, pixels), red in zip(frames, (0, 90, 180), strict=True):
        assert isinstance(pixels, np.ndarray)
        np.testing.assert_allclose(pixels[20, 20], [red, 0, 0], atol=6)  # lossy


def test_a_damaged_video_does_not_end_the_rest(tmp_path):
    pytest.importorskip("cv2")
    (tmp_path / "clip.mp4").write_bytes(b"no video")
    photos = [Photo("clip.mp4", tmp_path / "clip.mp4"), Photo("-", b"bytes")]

    broken, photo = read_frames(photos)

    assert isinstance(broken[1], ImageError)
    assert photo == ("-", b"bytes")
