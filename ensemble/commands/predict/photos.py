"""Photos to predict: files, folders, archives, patterns, tables and videos become one list."""

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

log = logging.getLogger(__name__)

VIDEO_SUFFIXES = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm"})
EVERY = 10  # frames


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

    What is left out of a folder, an archive or a pattern is counted in one line of the log.

    Args:
        words: Each a photo, a video, a folder (with those below it), a .zip of photos, a
            pattern such as `party/*.jpg`, or a table with a column `path`, relative to
            the table or to where the command is started.

    Raises:
        DataError: If a path does not exist, or if there is no photo in a folder, a table or
            behind a pattern. A photo that a table names and that does not exist is listed;
            reading it fails.
    """
    photos: list[Photo] = []
    skipped: list[Problem] = []
    for word in words:
        found, left_out = _find(word)
        photos += found
        skipped += left_out
    if skipped:
        log.warning("skipped %s", _count(skipped))
    return photos


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
    if not set(word) & set("*?["):
        raise missing(path)
    return _list_pattern(path)


def _list_root(root: Path) -> tuple[list[Photo], list[Problem]]:
    files = open_files([root])
    for note in files.notes:
        log.info("%s", note)
    archived = root.is_file()
    skipped = [*files.problems, *_refuse(files.names(), archived)]
    names = sorted(set(files.names()) - _names(skipped))
    if not names:
        why = f", as {_count(skipped)} are skipped" if skipped else ""
        raise DataError(f"There is no image in '{root}'{why}. Name one that has some.")
    reads = (partial(files.read, name) if archived else root / name for name in names)
    return [
        Photo(str(root / name), source) for name, source in zip(names, reads, strict=True)
    ], skipped


def _list_pattern(pattern: Path) -> tuple[list[Photo], list[Problem]]:
    found = Path(pattern.anchor).glob(str(pattern.relative_to(pattern.anchor)))
    files = {str(file) for file in found if file.is_file()}
    skipped = _refuse_outputs(files, pattern)
    skipped += _refuse(files - _names(skipped), archived=False)
    kept = sorted(files - _names(skipped))
    if not kept:
        why = f"; {_count(skipped)} are skipped" if skipped else ""
        raise DataError(
            f"No image and no video is called like '{pattern}'{why}. Check the pattern."
        )
    return [_photo(Path(file), Path(file)) for file in kept], skipped


def _photo(shown: Path, path: Path) -> Photo:
    """Returns a photo whose name can be written, even if it is not UTF-8 on the disk."""
    return Photo(os.fsencode(shown).decode(errors="replace"), path)


def _refuse(names: Iterable[str], archived: bool) -> Iterator[Problem]:
    for name in names:
        is_video = Path(name).suffix.lower() in VIDEO_SUFFIXES
        if is_video and archived:
            yield Problem(name, "video inside an archive")
        elif not is_video and not is_image(name):
            yield Problem(name, "not an image")


def _refuse_outputs(files: Iterable[str], pattern: Path) -> list[Problem]:
    """Returns the files that a command of this package wrote, below where the pattern begins."""
    base = next(parent for parent in pattern.parents if not set(str(parent)) & set("*?["))
    inner = {PurePath(file).relative_to(base): file for file in files}
    folders = {parent for path in inner for parent in path.parents}
    outputs = find_outputs(
        {
            folder.as_posix() if folder.name else "": [
                path.name for path in (base / folder).iterdir()
            ]
            for folder in folders
        }
    )
    return [
        Problem(file, f"written by ensemble.{command}")
        for path, file in inner.items()
        for output, command in outputs.items()
        if path.is_relative_to(output)
    ]


def _names(problems: Iterable[Problem]) -> set[str]:
    return {problem.name for problem in problems}


def _count(skipped: Sequence[Problem]) -> str:
    """Returns a text such as "3 files: not an image (2), it is encrypted (1)"."""
    return f"{len(skipped)} file{'' if len(skipped) == 1 else 's'}: {count_reasons(skipped)}"


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
