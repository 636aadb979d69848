"""Photos to predict: files, folders, archives, patterns, tables and videos become one list."""

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np

from configs.errors import ConfigError, DataError
from ensemble.datasets.files import is_image, missing, open_files
from ensemble.images.decoding import ImageError

VIDEO_SUFFIXES = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm"})
EVERY = 10  # frames

_PATHS = ("path", "image_path", "image", "file", "filename", "name")  # of a table's column


@dataclass(frozen=True)
class Photo:
    """A photo that has not been read yet, or a video.

    Args:
        name: As the user knows it.
        source: Its path, its bytes, or what reads them.
    """

    name: str
    source: Path | bytes | Callable[[], bytes]

    @property
    def is_video(self) -> bool:
        """Whether it is a video, judged by the end of its name."""
        return isinstance(self.source, Path) and self.source.suffix.lower() in VIDEO_SUFFIXES


def find_photos(words: Sequence[str]) -> list[Photo]:
    """Lists the photos and videos that the words of a command line name.

    Args:
        words: Each a photo, a video, a folder (with those below it), a .zip of photos, a
            pattern such as `party/*.jpg`, or a .csv with a column `path`, relative to the
            table or to where the command is started.

    Raises:
        DataError: If a path does not exist, or if there is no photo in a folder, a table or
            behind a pattern. A photo that a table names and that does not exist is listed;
            reading it fails.
    """
    return [photo for word in words for photo in _find(word)]


def read_frames(
    photos: Iterable[Photo], every: int = EVERY
) -> Iterator[tuple[str, Path | bytes | np.ndarray | ImageError]]:
    """Yields the name and the source of each photo, and every so many frames of each video.

    Frames are read one by one, so memory does not grow with the length of a video.
    A video or a frame that cannot be read yields the reason in place of its source.

    Args:
        photos: Photos and videos.
        every: Of so many frames of a video the first is taken.

    Raises:
        ConfigError: If there is a video and OpenCV is not installed.
    """
    for photo in photos:
        if photo.is_video:
            yield from _read_video(photo, every)
        elif callable(photo.source):
            try:
                yield photo.name, photo.source()
            except OSError as error:
                yield photo.name, ImageError(str(error))
        else:
            yield photo.name, photo.source


def load_video_reader() -> ModuleType:
    """Returns the module `cv2`.

    Raises:
        ConfigError: If it is not installed.
    """
    try:
        import cv2
    except ImportError as error:
        raise ConfigError(
            f"Videos need OpenCV ({error}). Install it with "
            "`pip install 'opencv-python-headless<5'`, or name photos only."
        ) from error
    return cv2


def _find(word: str) -> list[Photo]:
    path = Path(word).expanduser()
    if path.is_dir():
        return _list_folder(path)
    if path.suffix.lower() == ".csv" and path.is_file():
        return _list_table(path)
    if path.suffix.lower() == ".zip" and path.is_file():
        return _list_archive(path)
    if path.is_file():
        return [Photo(word, path)]
    if not set(word) & set("*?["):
        raise missing(path)
    found = Path(path.anchor).glob(str(path.relative_to(path.anchor)))
    files = sorted(file for file in found if file.is_file() and _is_wanted(file.name))
    photos = [Photo(str(file), file) for file in files]
    if not photos:
        raise DataError(f"No image and no video is called like '{word}'. Check the pattern.")
    return photos


def _list_folder(folder: Path) -> list[Photo]:
    paths = [folder / name for name in open_files([folder]).names() if _is_wanted(name)]
    if not paths:
        raise DataError(f"There is no image in '{folder}'. Name a folder that has some.")
    return [Photo(str(path), path) for path in paths]


def _list_archive(archive: Path) -> list[Photo]:
    files = open_files([archive])
    names = [name for name in files.names() if is_image(name)]
    if not names:
        raise DataError(f"There is no image in '{archive}'. Name an archive that has some.")
    return [Photo(str(archive / name), partial(files.read, name)) for name in names]


def _list_table(table: Path) -> list[Photo]:
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            columns = {name.strip().lower(): name for name in reader.fieldnames or () if name}
            column = next((columns[name] for name in _PATHS if name in columns), None)
            paths = [(row[column] or "").strip() for row in reader] if column else []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"'{table}' cannot be read as CSV in UTF-8 ({error}).") from error
    if column is None:
        shown = ", ".join(columns) or "none"
        raise DataError(f"'{table}' needs a column `path`. Its columns: {shown}.")
    if not any(paths):
        raise DataError(f"'{table}' names no photo.")
    return [Photo(path, _place(table.parent, path)) for path in paths if path]


def _place(folder: Path, path: str) -> Path:
    beside = folder / path
    return beside if beside.exists() or not Path(path).exists() else Path(path)


def _is_wanted(name: str) -> bool:
    return is_image(name) or Path(name).suffix.lower() in VIDEO_SUFFIXES


def _read_video(video: Photo, every: int) -> Iterator[tuple[str, np.ndarray | ImageError]]:
    cv2 = load_video_reader()
    capture = cv2.VideoCapture(str(video.source))
    try:
        frame = 0
        while capture.grab():
            if frame % every == 0:
                fine, pixels = capture.retrieve()
                name = f"{video.name}#{frame}"
                yield name, pixels[:, :, ::-1].copy() if fine else ImageError("a damaged frame")
            frame += 1
        if not frame:
            yield video.name, ImageError("not a video that OpenCV can read")
    finally:
        capture.release()
