"""A CSV that names images and their labels, and perhaps splits, groups and weights."""

import math
import posixpath
import unicodedata
from collections import defaultdict
from contextlib import suppress
from dataclasses import replace
from pathlib import PurePosixPath

from configs.errors import DataError
from configs.registry import unknown
from ensemble.datasets.files import Files, is_image
from ensemble.datasets.labels import fold
from ensemble.datasets.registry import (
    Collection,
    DatasetSpec,
    Location,
    Problem,
    Record,
    register_source,
)
from ensemble.datasets.splits import find_split
from ensemble.datasets.tables import Table, find_table, find_tables, open_images


def matches(location: Location) -> bool:
    """Returns whether a location has a table of paths and labels."""
    return bool(find_tables(location, _is_manifest))


def load(location: Location) -> Collection:
    """Reads the table and finds the image of each row.

    A path is relative to the table or to a root; where that leads nowhere, the
    only image of the same file name is taken. An image that
    stands twice is kept once; with two different labels it is left out.

    Raises:
        DataError: If there is not exactly one such table, or a root is missing.
    """
    table = find_table(location, _is_manifest, "path,label")
    files = open_images(location, table)
    rows, problems = _read_rows(table)
    names, missing = _find_images(_Index(files, table), table, rows)
    records, twice = _join(table, rows, names)

    named = set(names.values())
    unnamed = set(filter(is_image, files.names())) - named
    beside = PurePosixPath(table.name).parent
    if beside not in {PurePosixPath(name).parent for name in named}:  # a picture of the data
        unnamed = {name for name in unnamed if PurePosixPath(name).parent != beside}
    notes = [f"{len(unnamed)} images without a row in {table.name} are ignored"] if unnamed else []
    return Collection(files, records, files.problems + problems + missing + twice, notes)


def read_column(location: Location, column: str) -> dict[str, str]:
    """Reads what a column of a manifest says, such as "sex": image to its cell.

    Raises:
        DataError: If there is not exactly one manifest, or it has no such column.
    """
    table = find_table(location, _is_manifest, "path,label")
    key = column.strip().lower()
    if key not in table.columns:
        raise DataError(unknown(f"column of {table.name}", column, table.columns))
    cells = {number: row[key] for number, row in table.rows()}
    rows, _ = _read_rows(table)
    names, _ = _find_images(_Index(open_images(location, table), table), table, rows)
    # As in `load`, the first row of an image that stands twice counts.
    return {names[number]: cells[number] for number in sorted(names, reverse=True)}


def _is_manifest(table: Table) -> bool:
    return {"path", "label"} <= table.meanings.keys()


def _read_rows(table: Table) -> tuple[dict[int, Record], list[Problem]]:
    """Reads row number to a record whose name is still the path as written."""
    columns = table.meanings
    rows, problems = {}, []
    for number, cells in table.rows():
        try:
            rows[number] = _read_row(**{name: cells[column] for name, column in columns.items()})
        except ValueError as error:
            problems.append(Problem(table.row_name(number), str(error)))
    return rows, problems


def _read_row(path: str, label: str, split: str = "", group: str = "", weight: str = "") -> Record:
    if not path:
        raise ValueError("no path")
    if not label:
        raise ValueError(f"no label for '{path}'")
    if split and find_split(split) is None:
        raise ValueError(f"the split '{split}' is neither train, validation nor test")
    return Record(path, label, find_split(split), group or None, _read_weight(weight or "1"))


def _read_weight(text: str) -> float:
    with suppress(ValueError):
        if 0 <= (weight := float(text)) < math.inf:
            return weight
    raise ValueError(f"the weight '{text}' is no number from 0 up")


class _Index:
    """Finds images by paths as tables write them."""

    def __init__(self, files: Files, table: Table) -> None:
        self._folder = posixpath.dirname(table.path)
        self._roots = [root.absolute for root in files.roots.values()]
        self._by_path = {_normalise(files.path(name)): name for name in files.names()}
        self._by_file_name = defaultdict(list)
        for name in files.names():
            self._by_file_name[_normalise(posixpath.basename(name))].append(name)

    def find(self, path: str) -> list[str]:
        """Returns the files that a path names: beside the table, else inside the roots.

        A path without a folder names the files called so in any folder.
        """
        path = _normalise(path)
        anywhere = [] if "/" in path else self.find_called(path)
        return self._at(path, [self._folder]) or self._at(path, self._roots) or anywhere

    def find_called(self, path: str) -> list[str]:
        """Returns the files with the path's file name, in any folder."""
        return self._by_file_name[posixpath.basename(_normalise(path))]

    def _at(self, path: str, folders: list[str]) -> list[str]:
        paths = {posixpath.normpath(posixpath.join(folder, path)) for folder in folders}
        return [self._by_path[path] for path in sorted(paths & self._by_path.keys())]


def _normalise(path: str) -> str:
    return posixpath.normpath(unicodedata.normalize("NFC", path).replace("\\", "/"))


def _find_images(
    index: _Index, table: Table, rows: dict[int, Record]
) -> tuple[dict[int, str], list[Problem]]:
    """Returns row number to the name of its image, and the rows without one."""
    found = {number: index.find(row.name) for number, row in rows.items()}

    # Where a path leads nowhere, its file name is weak evidence: it never takes
    # an image that another row names.
    taken = {same[0] for same in found.values() if len(same) == 1}
    names, problems = {}, []
    for number, row in rows.items():
        same = found[number] or [name for name in index.find_called(row.name) if name not in taken]
        if len(same) == 1:
            names[number] = same[0]
        else:
            reason = f"{len(same)} images could be" if same else "there is no image"
            problems.append(Problem(table.row_name(number), f"{reason} '{row.name}'"))
    return names, problems


def _join(
    table: Table, rows: dict[int, Record], names: dict[int, str]
) -> tuple[list[Record], list[Problem]]:
    """Returns one record for each image, and what its further rows say."""
    numbers = defaultdict(list)
    for number, name in names.items():
        numbers[name].append(number)
    records, problems = [], []
    for name, (first, *others) in sorted(numbers.items()):
        labels = {fold(rows[number].label): rows[number].label for number in (first, *others)}
        if len(labels) > 1:
            problems.append(Problem(name, f"has different labels: {', '.join(labels.values())}"))
            continue
        records.append(replace(rows[first], name=name))
        problems += [
            Problem(
                table.row_name(number), f"duplicate row: '{name}' stands in row {first} already"
            )
            for number in others
        ]
    return records, problems


register_source(
    DatasetSpec(
        name="manifest",
        summary="a CSV with path and label, perhaps split, group and weight",
        matches=matches,
        load=load,
        priority=50,
    )
)
