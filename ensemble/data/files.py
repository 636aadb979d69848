"""Files of folders and .zip archives, listed and read in one way, never unpacked."""

import lzma
import os
import posixpath
import stat
import threading
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from configs.errors import DataError
from configs.registry import near_miss
from ensemble.data.formats import image_suffixes
from ensemble.data.outputs import find_outputs
from ensemble.data.records import Problem

TABLE_SUFFIXES = frozenset({".csv", ".tsv", ".txt", ".jsonl", ".ndjson", ".parquet"})

# What systems and network drives leave beside pictures, in lower case.
_LITTER = frozenset(
    {
        *("__macosx", "desktop.ini", "thumbs.db", "ehthumbs.db", "$recycle.bin"),
        *("#recycle", "#snapshot", "@eadir", "@recently-snapshot", "@recycle", "@tmp"),
        *("lost+found", "system volume information", "__pycache__"),
    }
)

# Room for the largest table known (fer2013.csv, 287 MiB), while an entry that
# unpacks to gigabytes is refused before it fills the memory.
ENTRY_LIMIT = 512 * 2**20  # bytes, unpacked

# What reading a file may raise; damage inside an archive is no OSError by itself.
READ_ERRORS = (
    OSError,
    EOFError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
)


def open_files(roots: Sequence[Path]) -> "Files":
    """Lists folders and .zip archives as one collection of files.

    Folders are read with all folders below them. Symbolic links are followed,
    but no folder is read twice. Hidden files, what systems leave behind
    (`__MACOSX`, `Thumbs.db`, `@eaDir`) and what the commands of this package
    wrote are passed over. A root given twice counts once.

    Args:
        roots: Folders and .zip archives.

    Returns:
        The files by name. With one root a name is the path inside it, with
        several it begins with the root's own name.

    Raises:
        DataError: If a root does not exist, is no folder and no sound .zip
            archive, lies inside another root or is the output of a command.
    """
    distinct = {path.resolve(): path for path in roots}
    for inner in distinct:
        outer = next((path for path in distinct if path in inner.parents), None)
        if outer is not None and inner.is_dir():
            raise DataError(
                f"'{distinct[inner]}' lies inside '{distinct[outer]}'. Give one of them."
            )
    return Files([_open_root(path) for path in distinct.values()])


def is_image(name: str) -> bool:
    """Returns whether a file is an image, judged by the end of its name."""
    return PurePosixPath(name).suffix.lower() in image_suffixes()


def is_table(path: Path) -> bool:
    """Returns whether a file is a table, according to the end of its name."""
    return path.suffix.lower() in TABLE_SUFFIXES


def missing(path: Path) -> DataError:
    """Returns the error for a path that does not exist, with its near miss."""
    siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    close = near_miss(path.name, siblings)
    hint = f"Did you mean '{path.with_name(close)}'?" if close else "Check the path."
    return DataError(f"There is no file or folder '{path}'. {hint}")


class Files:
    """The files of one or several roots. Safe to read from several threads.

    Args:
        roots: Listed folders and archives.

    Attributes:
        roots: Prefix of a root's names to that root; the prefix of an only root is "".
        problems: Files and archive entries that are refused, and why.
        notes: Lines for the screen that name the outputs of commands passed over.
    """

    def __init__(self, roots: "Sequence[Folder | Archive]") -> None:
        self.roots = dict(zip(_prefixes([root.path for root in roots]), roots, strict=True))
        self.problems = [
            Problem(posixpath.join(prefix, problem.name), problem.reason)
            for prefix, root in self.roots.items()
            for problem in root.problems
        ]
        self.notes = [
            f"'{posixpath.join(prefix, output)}' is passed over: ensemble.{command} wrote it"
            for prefix, root in self.roots.items()
            for output, command in root.outputs.items()
        ]
        self._members = {
            posixpath.join(prefix, entry): (root, entry)
            for prefix, root in self.roots.items()
            for entry in root.entries
        }

    def names(self) -> list[str]:
        """Returns the names of all files, sorted."""
        return sorted(self._members)

    def read(self, name: str) -> bytes:
        """Returns the content of a file.

        Raises:
            OSError: If the file is gone, damaged or may not be read.
        """
        try:
            root, entry = self._members[name]
            return root.read(entry)
        except KeyError:
            raise FileNotFoundError(f"there is no file '{name}'") from None
        except OSError:
            raise
        except READ_ERRORS as error:
            raise OSError(f"damaged in its archive: {error}") from error

    def open(self, name: str) -> BinaryIO:
        """Opens a file as a stream, for tables that are too large to read at once.

        Raises:
            READ_ERRORS: Now or while it is read, if the file is gone or damaged.
        """
        root, entry = self._members[name]
        return root.open(entry)

    def path(self, name: str) -> str:
        """Returns the absolute path of a file, an archive taken for a folder."""
        root, entry = self._members[name]
        return posixpath.join(root.absolute, entry)


class Folder:
    """The files below a folder.

    Attributes:
        path: The folder as given.
        absolute: Its absolute path.
        entries: Paths of files relative to the folder, with forward slashes.
        folders: Paths of all folders below, those without files included.
        problems: What is passed over, and why.
        outputs: Path to the command of this package that wrote it, for what is passed over.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.absolute = path.resolve().as_posix()
        self.entries: list[str] = []
        self.folders: set[str] = set()
        self.problems: list[Problem] = []
        visited: set[str] = set()
        listing: dict[str, list[str]] = {}
        for parent, folders, files in os.walk(path, followlinks=True, onerror=self._unreadable):
            here = Path(parent)
            real = str(here.resolve())
            inner = here.relative_to(path)
            if real in visited:
                self.problems.append(Problem(inner.as_posix(), "links to a folder read already"))
                self.folders.discard(inner.as_posix())
                folders.clear()
                continue
            visited.add(real)
            listing[_key(inner.as_posix())] = files
            folders[:] = sorted(folder for folder in folders if not _is_hidden(folder))
            self.folders.update((inner / folder).as_posix() for folder in folders)
            for file in files:
                if not _is_hidden(file) and _is_regular(here / file):
                    self._add((inner / file).as_posix())
        self.outputs = find_outputs(listing)
        self.entries = _outside(self.outputs, self.entries)
        self.folders = _outside_folders(self.outputs, self.folders, self.entries)

    def open(self, entry: str) -> BinaryIO:
        return (self.path / entry).open("rb")

    def read(self, entry: str) -> bytes:
        return (self.path / entry).read_bytes()

    def _add(self, entry: str) -> None:
        try:
            entry.encode()
        except UnicodeEncodeError:
            shown = entry.encode(errors="replace").decode()
            self.problems.append(Problem(shown, "its name is not UTF-8"))
        else:
            self.entries.append(entry)

    def _unreadable(self, error: OSError) -> None:
        folder = Path(str(error.filename)).relative_to(self.path).as_posix()
        self.problems.append(Problem(folder, f"cannot be listed: {error.strerror}"))


class Archive:
    """The entries of a .zip archive, with the attributes of `Folder`.

    An entry is refused if its name leads out of the archive, if it is
    encrypted, or if it is larger than `ENTRY_LIMIT` when unpacked.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.absolute = path.resolve().as_posix()
        self.entries: dict[str, zipfile.ZipInfo] = {}
        self.folders: set[str] = set()
        self.problems: list[Problem] = []
        # `ZipFile` counts its open entries without a lock.
        self._lock = threading.Lock()
        self._zip = _open_zip(path)
        listing: defaultdict[str, list[str]] = defaultdict(list)
        for info in self._zip.infolist():
            self._add(info)
            folder, name = posixpath.split(info.filename.replace("\\", "/"))
            listing[folder].append(name)
        self.outputs = find_outputs(listing)
        kept = _outside(self.outputs, self.entries)
        self.entries = {entry: self.entries[entry] for entry in kept}
        self.folders = _outside_folders(self.outputs, self.folders, kept)

    def open(self, entry: str) -> BinaryIO:
        return self._zip.open(self.entries[entry])  # type: ignore[return-value]

    def read(self, entry: str) -> bytes:
        with self._lock:
            return self._zip.read(self.entries[entry])

    def _add(self, info: zipfile.ZipInfo) -> None:
        name = info.filename.replace("\\", "/")
        entry = posixpath.normpath(name)
        if any(_is_hidden(part) for part in entry.split("/") if part != ".."):
            return
        if reason := _refusal(name, info):
            self.problems.append(Problem(name, reason))
            return
        parents = PurePosixPath(entry).parents
        self.folders.update(str(parent) for parent in parents if parent.name)
        if name.endswith("/"):
            self.folders.add(entry)
            return
        if entry in self.entries:
            self.problems.append(
                Problem(entry, "occurs twice in the archive; the later one is read")
            )
        self.entries[entry] = info


def _open_root(path: Path) -> Folder | Archive:
    root: Folder | Archive
    if path.is_dir():
        root = Folder(path)
    elif path.suffix.lower() == ".zip" and path.is_file():
        root = Archive(path)
    elif path.exists():
        raise DataError(
            f"'{path}' is neither a folder nor a .zip archive. Unpack it or pack it so."
        )
    else:
        raise missing(path)
    if command := root.outputs.get(""):
        raise DataError(
            f"'{path}' was written by ensemble.{command} and holds no images to read. "
            "Give the folder of your images."
        )
    return root


def _open_zip(path: Path) -> zipfile.ZipFile:
    # Many tools write names in UTF-8 without the flag that says so.
    try:
        try:
            return zipfile.ZipFile(path, metadata_encoding="utf-8")
        except UnicodeDecodeError:
            return zipfile.ZipFile(path)
    except READ_ERRORS as error:
        raise DataError(f"'{path}' cannot be read as a .zip archive: {error}.") from error


def _refusal(name: str, info: zipfile.ZipInfo) -> str | None:
    if name.startswith("/") or name[1:2] == ":" or ".." in name.split("/"):
        return "its name leads out of the archive"
    if info.flag_bits & 1:
        return "it is encrypted"
    if info.file_size > ENTRY_LIMIT:
        return f"it is larger than {ENTRY_LIMIT >> 20} MiB when unpacked"
    return None


def _prefixes(paths: Sequence[Path]) -> list[str]:
    if len(paths) == 1:
        return [""]
    names = [path.name for path in paths]
    distinct = all(names) and len(set(names)) == len(names)
    return names if distinct else [path.as_posix() for path in paths]


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in _LITTER


def _outside(outputs: Mapping[str, str], entries: Iterable[str]) -> list[str]:
    """Returns the entries that are not in an output of a command."""
    return [entry for entry in entries if not outputs.keys() & {entry, *_parents(entry)}]


def _outside_folders(
    outputs: Mapping[str, str], folders: Iterable[str], entries: Iterable[str]
) -> set[str]:
    """Returns the folders that are not in an output and hold more than outputs."""
    emptied = {parent for output in outputs for parent in _parents(output)}
    emptied -= {parent for entry in entries for parent in _parents(entry)}
    return set(_outside(outputs, folders)) - emptied


def _parents(entry: str) -> list[str]:
    """Returns the folders around an entry, the root "" last."""
    return [_key(str(parent)) for parent in PurePosixPath(entry).parents]


def _key(folder: str) -> str:
    return "" if folder == "." else folder


def _is_regular(path: Path) -> bool:
    """Returns whether a path is a file or a broken link, and no pipe or device."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return True  # reported when it is read
