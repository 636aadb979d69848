"""Lists the photos to predict in files, folders, archives, patterns, tables and videos."""

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePath
from types import ModuleType

import numpy as np

from configs.errors import DataError
from configs.files import expand_home
from ensemble.data.decoding import ImageError
from ensemble.data.files import is_image, is_table, missing, open_files
from ensemble.data.named_files import FilesBeside, find_named, normalise_path
from ensemble.data.outputs import find_outputs
from ensemble.data.registry import Problem, count_reasons
from ensemble.data.tables import open_table
from ensemble.faces.opencv import load_opencv
from ensemble.system.text import plural

log = logging.getLogger(__name__)

VIDEO_SUFFIXES = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm"})
EVERY = 10  # frames
_WILDCARDS = frozenset("*?[")


@dataclass(frozen=True)
class Photo:
    """A photo that has not been read yet, or a video.

    Args:
        name: As the user knows it.
        source: Its path, its bytes, or a function that reads them.
    """

    name: str
    source: Path | bytes | Callable[[], bytes]

    @property
    def is_video(self) -> bool:
        """Whether the ending of its name is that of a video."""
        return isinstance(self.source, Path) and self.source.suffix.lower() in VIDEO_SUFFIXES


def find_photos(words: Sequence[str]) -> list[Photo]:
    """Lists the photos and videos that the words of a command line name.

    Skipped files of folders, archives and patterns are counted in one line of the log.

    Args:
        words: Each a photo, a video, a folder (with those below it), a .zip of photos, a
            pattern such as `party/*.jpg`, or a table with a column `path`, relative to
            the table or to the working folder.

    Raises:
        DataError: If a path does not exist, or if there is no photo in a folder, a table or
            behind a pattern. A missing photo of a table is listed; reading it fails.
    """
    found = [_find(word) for word in words]
    skipped = [problem for _, problems in found for problem in problems]
    if skipped:
        log.warning("skipped %s", _count(skipped))
    return [photo for photos, _ in found for photo in photos]


def read_frames(
    photos: Iterable[Photo], every: int = EVERY
) -> Iterator[tuple[str, Path | bytes | np.ndarray | ImageError]]:
    """Yields the name and the source of each photo, and of every Nth frame of each video.

    Frames are read one by one, so memory does not grow with the length of a video.
    An unreadable video or frame yields the reason in place of its source.

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
    """Returns the module `cv2`; raises a ConfigError if it is not installed."""
    return load_opencv("Videos need", "name photos only")


def _find(word: str) -> tuple[list[Photo], list[Problem]]:
    path = expand_home(word)
    if path.is_dir() or (path.suffix.lower() == ".zip" and path.is_file()):
        return _list_root(path)
    if is_table(path) and path.suffix.lower() != ".txt" and path.is_file():
        return _list_table(path), []
    if path.is_file():
        return [_photo(Path(word), path)], []
    if not set(word) & _WILDCARDS:
        raise missing(path)
    return _list_pattern(path)


def _list_root(root: Path) -> tuple[list[Photo], list[Problem]]:
    files = open_files([root])
    for note in files.notes:
        log.info("%s", note)
    archived = root.is_file()
    names, skipped = _split(files.names(), [*files.problems, *_unusable(files.names(), archived)])
    if not names:
        why = f", as {_count(skipped)} are skipped" if skipped else ""
        raise DataError(f"There is no image in '{root}'{why}. Name one that has some.")
    photos = [
        Photo(str(root / name), partial(files.read, name) if archived else root / name)
        for name in names
    ]
    return photos, skipped


def _list_pattern(pattern: Path) -> tuple[list[Photo], list[Problem]]:
    found = Path(pattern.anchor).glob(str(pattern.relative_to(pattern.anchor)))
    files = {str(file) for file in found if file.is_file()}
    inputs, outputs = _split(files, _former_outputs(files, pattern))
    kept, unusable = _split(inputs, list(_unusable(inputs, archived=False)))
    skipped = outputs + unusable
    if not kept:
        why = f"; {_count(skipped)} are skipped" if skipped else ""
        raise DataError(
            f"No image and no video is called like '{pattern}'{why}. Check the pattern."
        )
    return [_photo(Path(file), Path(file)) for file in kept], skipped


def _photo(shown: Path, path: Path) -> Photo:
    """Returns a photo whose name can be written, even if it is not UTF-8 on the disk."""
    return Photo(os.fsencode(shown).decode(errors="replace"), path)


def _split(names: Iterable[str], problems: list[Problem]) -> tuple[list[str], list[Problem]]:
    """Returns the names without those that have a problem, sorted, and the problems."""
    return sorted(set(names) - {problem.name for problem in problems}), problems


def _unusable(names: Iterable[str], archived: bool) -> Iterator[Problem]:
    for name in names:
        is_video = Path(name).suffix.lower() in VIDEO_SUFFIXES
        if is_video and archived:
            yield Problem(name, "video inside an archive")
        elif not is_video and not is_image(name):
            yield Problem(name, "not an image")


def _former_outputs(files: Iterable[str], pattern: Path) -> list[Problem]:
    """Returns the files that a command of this package wrote, below where the pattern begins."""
    base = next(parent for parent in pattern.parents if not set(str(parent)) & _WILDCARDS)
    inner = {PurePath(file).relative_to(base): file for file in files}
    folders = {parent for path in inner for parent in path.parents}
    listing = {
        folder.as_posix() if folder.name else "": [path.name for path in (base / folder).iterdir()]
        for folder in folders
    }
    outputs = find_outputs(listing)
    return [
        Problem(file, f"written by ensemble.{command}")
        for path, file in inner.items()
        for output, command in outputs.items()
        if path.is_relative_to(output)
    ]


def _count(skipped: Sequence[Problem]) -> str:
    """Returns a text such as "3 files: not an image (2), it is encrypted (1)"."""
    return f"{plural(len(skipped), 'file')}: {count_reasons(skipped)}"


def _list_table(path: Path) -> list[Photo]:
    table = open_table(path)
    if "path" not in table.meanings:
        shown = ", ".join(table.columns) or "none"
        raise DataError(f"'{path}' needs a column `path`. Its columns: {shown}.")
    cells = {number: row[table.meanings["path"]] for number, row in table.rows()}
    words = {number: word for number, word in cells.items() if word}
    if not words:
        raise DataError(f"'{path}' names no photo.")
    found, notes = find_named(FilesBeside(table), table, words)
    for note in notes:
        log.info("%s", note)
    return [Photo(word, _place(path.parent, word, found[row])) for row, word in words.items()]


def _place(folder: Path, word: str, found: Sequence[str]) -> Path:
    if len(found) == 1:
        return folder / found[0]
    here = Path(normalise_path(word))
    return here if here.exists() else folder / here


def _read_video(video: Photo, every: int) -> Iterator[tuple[str, np.ndarray | ImageError]]:
    cv2 = load_video_reader()
    capture = cv2.VideoCapture(str(video.source))
    frame = 0
    try:
        while capture.grab():
            if frame % every == 0:
                fine, pixels = capture.retrieve()
                name = f"{video.name}#{frame}"
                yield name, pixels[:, :, ::-1].copy() if fine else ImageError("a corrupt frame")
            frame += 1
        if not frame:
            yield video.name, ImageError("not a video that OpenCV can read")
    finally:
        capture.release()
