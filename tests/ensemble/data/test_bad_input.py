"""Bad input of every kind: named, counted and left out, while the rest is used."""

import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from configs.errors import DataError
from configs.schema import DataConfig
from ensemble.data.reading import inspect
from ensemble.faces.store import read_dataset


def picture(path: Path, seed: int = 0, side: int = 20) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    """Ten good pictures of each of two classes."""
    for label in ("happy", "sad"):
        for number in range(10):
            picture(tmp_path / "faces" / label / f"{number}.png", seed=number)
    return tmp_path / "faces"


def read(**data) -> tuple[int, dict[str, str]]:
    """Reads a dataset as a training does: how many images are good, and what is wrong."""
    dataset = read_dataset(DataConfig.model_validate(data), seed=1)
    inspections = [inspect(split, 16) for split in (dataset.train, dataset.validation)]
    problems = [*dataset.problems, *(p for found in inspections for p in found.problems)]
    reasons = {Path(problem.name).name: problem.reason for problem in problems}
    return sum(len(found.readable) for found in inspections), reasons


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(b"\0" * 100))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")


def truncated_jpeg(path: Path) -> None:
    picture(path, side=200)
    path.write_bytes(path.read_bytes()[:4000])


def dangling_link(path: Path) -> None:
    path.symlink_to(path.with_name("gone.png"))


BAD_FILES: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "truncated JPEG": ("cut.jpg", truncated_jpeg, "truncated"),
    "zero bytes": ("empty.png", lambda path: path.write_bytes(b""), "empty"),
    "text named .png": ("text.png", lambda path: path.write_text("hello"), "not an image"),
    "huge header": (
        "huge.png",
        lambda path: path.write_bytes(png_header(30_000, 30_000)),
        "pixels",
    ),
    "link to nowhere": ("link.png", dangling_link, ""),
    "unreadable, even for root": ("mem.png", lambda path: path.symlink_to("/proc/self/mem"), ""),
    "link to itself": ("self.png", lambda path: path.symlink_to(path), ""),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_bad_file_is_named_with_its_reason_and_the_rest_is_used(faces, kind):
    name, make, reason = BAD_FILES[kind]
    make(faces / "happy" / name)

    good, problems = read(root=faces)

    assert good == 20
    assert set(problems) == {name}
    assert problems[name]
    assert reason in problems[name]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_without_permission_is_named(faces):
    (faces / "happy" / "0.png").chmod(0)

    good, problems = read(root=faces)

    assert good == 19
    assert set(problems) == {"0.png"}


def test_a_folder_that_links_to_its_parent_is_read_once(faces):
    (faces / "happy" / "loop").symlink_to(faces, target_is_directory=True)

    good, _ = read(root=faces)

    assert good == 20


def test_names_in_any_script_are_read(faces):
    for name in ("größe.png", "笑顔.png", "улыбка 1.png", "a,b;'c'.png"):
        picture(faces / "happy" / name)

    good, problems = read(root=faces)

    assert (good, problems) == (24, {})


def test_rows_without_label_or_image_and_doubles_are_named(faces, tmp_path):
    rows = [f"{label}/{n}.png,{label}" for label in ("happy", "sad") for n in range(10)]
    rows += ["happy/0.png,happy", "happy/1.png,sad", "happy/2.png,", "happy/99.png,happy"]
    table = tmp_path / "faces" / "labels.csv"
    table.write_text("path,label\n" + "\n".join(rows) + "\n")

    dataset = read_dataset(DataConfig.model_validate({"root": faces, "labels": table}), seed=1)

    names = {*dataset.train.names, *dataset.validation.names}
    reasons = " | ".join(f"{problem.name} {problem.reason}" for problem in dataset.problems)
    assert not any(
        name.endswith("happy/1.png") for name in names
    )  # two labels: neither is believed
    assert len(names) == 19
    assert len(dataset.problems) >= 4
    for place in ("labels.csv:22", "labels.csv:24", "labels.csv:25", "99.png"):
        assert place in reasons


def test_an_archive_with_a_way_out_is_not_followed(faces, tmp_path):
    archive = tmp_path / "faces.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in faces.rglob("*.png"):
            file.write(path, path.relative_to(faces.parent))
        file.write(faces / "happy" / "0.png", "../../happy/escape.png")

    good, problems = read(root=archive)

    assert good == 20
    assert set(problems) == {"escape.png"}


def test_a_broken_archive_is_one_sentence(tmp_path):
    (tmp_path / "faces.zip").write_bytes(b"PK\x03\x04 and then nothing")

    with pytest.raises(DataError, match=r"faces\.zip"):
        read(root=tmp_path / "faces.zip")


def test_no_image_one_class_and_an_empty_class_are_errors(faces, tmp_path):
    (tmp_path / "nothing").mkdir()
    with pytest.raises(DataError, match="nothing"):
        read(root=tmp_path / "nothing")
    with pytest.raises(DataError, match="class"):
        read(root=faces, classes="happy")
    (faces / "angry").mkdir()
    with pytest.raises(DataError, match="angry"):
        read(root=faces)


def test_a_path_that_is_not_there_names_the_near_miss(faces):
    with pytest.raises(DataError, match=r"facse.*faces"):
        read(root=faces.with_name("facse"))


def test_pictures_of_every_mode_come_out_as_rgb(faces):
    generator = np.random.default_rng(0)
    colour = Image.fromarray(generator.integers(0, 256, (20, 20, 3), dtype=np.uint8))
    deep = Image.fromarray(generator.integers(0, 2**16, (20, 20), dtype=np.uint16))
    colour.convert("L").save(faces / "sad" / "grey.png")
    colour.convert("RGBA").save(faces / "sad" / "rgba.png")
    colour.convert("CMYK").save(faces / "sad" / "cmyk.jpg")
    colour.convert("P").save(faces / "sad" / "palette.gif")
    deep.save(faces / "sad" / "deep.png")

    assert read(root=faces) == (25, {})
