"""Files found by the paths that a table writes, without listing the folders around them."""

import posixpath
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Protocol

from ensemble.data.files import open_files
from ensemble.data.registry import Problem
from ensemble.data.tables import Table


class Place(Protocol):
    """Where the files of a table lie."""

    def find(self, path: str) -> list[str]:
        """Returns the names of the files that a normalised path leads to."""

    def find_called(self, file_name: str) -> list[str]:
        """Returns the names of the files that are called so in any folder."""


class FilesBeside:
    """The images that a table alone names, relative to its folder, which is not listed."""

    problems: Sequence[Problem] = ()

    def __init__(self, table: Table) -> None:
        self._folder = posixpath.dirname(table.path)

    def read(self, name: str) -> bytes:
        """Returns the content of a file."""
        return Path(self._folder, name).read_bytes()

    def find(self, path: str) -> list[str]:
        """Returns the file that a path names, in whichever Unicode form it is stored."""
        forms = (unicodedata.normalize(form, path) for form in ("NFC", "NFD"))
        paths = [posixpath.normpath(posixpath.join(self._folder, form)) for form in forms]
        found = next((path for path in paths if Path(path).is_file()), None)
        return [found.removeprefix(f"{self._folder}/")] if found else []

    def find_called(self, file_name: str) -> list[str]:
        """Returns the files of a name in any folder below the table's, listed for it."""
        return self._by_file_name.get(file_name, [])

    def count_unnamed(self, named: set[str]) -> int:
        """Returns 0, as nothing else is looked at."""
        return 0

    @cached_property
    def _by_file_name(self) -> dict[str, list[str]]:
        return group_by_file_name(open_files([Path(self._folder)]).names())


def find_named(
    place: Place, table: Table, paths: Mapping[int, str]
) -> tuple[dict[int, list[str]], list[str]]:
    """Finds the files that the rows of a table name.

    A path without a folder that leads nowhere finds the files of that name in any
    folder; the file of a path with a folder is never replaced by a namesake.

    Args:
        place: Where to look.
        table: The table, for messages.
        paths: Row number to path as written.

    Returns:
        Row number to the files that can be meant, and lines for the screen.
    """
    paths = {number: normalise_path(path) for number, path in paths.items()}
    found = {number: place.find(path) for number, path in paths.items()}
    bare = {
        number: place.find_called(path)
        for number, path in paths.items()
        if not found[number] and "/" not in path
    }
    count = sum(len(names) == 1 for names in bare.values())
    note = (
        f"{count} images are found by their file name alone, in folders that "
        f"{table.name} does not name"
    )
    return {**found, **bare}, [note] if count else []


def group_by_file_name(names: Iterable[str]) -> dict[str, list[str]]:
    """Returns file name, as `normalise_path` writes it, to the paths that end in it."""
    groups = defaultdict(list)
    for name in names:
        groups[normalise_path(posixpath.basename(name))].append(name)
    return dict(groups)


def normalise_path(path: str) -> str:
    """Returns a path as a table writes it with forward slashes and in one Unicode form."""
    return posixpath.normpath(unicodedata.normalize("NFC", path).replace("\\", "/"))
