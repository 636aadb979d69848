"""A CSV that names images and their labels, and perhaps splits, groups and weights."""

import math
import posixpath
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

from configs.errors import DataError
from configs.registry import unknown
from ensemble.data.files import Files, is_image, is_table, open_files
from ensemble.data.labels import fold
from ensemble.data.named_files import (
    FilesBeside,
    find_named,
    group_by_file_name,
    normalise_path,
)
from ensemble.data.registry import (
    Collection,
    DatasetSpec,
    Location,
    Problem,
    Record,
    register_source,
)
from ensemble.data.splits import find_split
from ensemble.data.tables import Table, find_table, find_tables


def matches(location: Location) -> bool:
    """Returns whether a location has a table of paths and labels."""
    return bool(find_tables(location, _is_manifest))


def load(location: Location) -> Collection:
    """Reads the table and finds the image of each row.

    A path is relative to the table, to a root or to the folder around it. A path
    without a folder that leads nowhere finds the only image of that name in any
    folder. An image in two rows is kept once; with two different labels it
    is left out.

    Raises:
        DataError: If there is not exactly one such table, or a root is missing.
    """
    table = find_table(location, _is_manifest, "path,label")
    rows, problems = _read_rows(table)
    place = _open_place(location, table)
    found = _find_images(place, table, rows)
    records, twice = _join(table, rows, found.names)

    unnamed = place.count_unnamed(set(found.names.values()))
    notes = [f"{unnamed} images without a valid row in {table.name} are ignored"] if unnamed else []
    return Collection(
        place,
        records,
        [*place.problems, *problems, *found.problems, *twice],
        [*notes, *found.notes],
    )


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
    names = _find_images(_open_place(location, table), table, rows).names
    # As in `load`, the first row of an image in two rows counts.
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


class _Roots:
    """The images of folders and archives, found by paths as tables write them."""

    def __init__(self, files: Files, table: Table) -> None:
        self.read = files.read
        self.problems = files.problems
        self._beside = posixpath.dirname(table.name)
        self._names = files.names()
        self._by_path = {normalise_path(files.path(name)): name for name in self._names}
        self._by_file_name = group_by_file_name(self._names)
        roots = [root.absolute for root in files.roots.values()]
        self._folders = (
            [posixpath.dirname(table.path)],
            roots,
            [posixpath.dirname(root) for root in roots],
        )

    def find(self, path: str) -> list[str]:
        """Returns the files that a path names: beside the table, in the roots or around them."""
        for folders in self._folders:
            paths = {posixpath.normpath(posixpath.join(folder, path)) for folder in folders}
            if found := sorted(paths & self._by_path.keys()):
                return [self._by_path[path] for path in found]
        return []

    def find_called(self, file_name: str) -> list[str]:
        """Returns the files of a name in any folder."""
        return self._by_file_name.get(file_name, [])

    def count_unnamed(self, named: set[str]) -> int:
        """Returns how many images have no row, pictures of the data beside the table aside."""
        folders = {posixpath.dirname(name) for name in named}
        ignored = {self._beside} - folders
        unnamed = set(filter(is_image, self._names)) - named
        return sum(posixpath.dirname(name) not in ignored for name in unnamed)


def _open_place(location: Location, table: Table) -> _Roots | FilesBeside:
    roots = [root for root in location.roots if not is_table(root)]
    return _Roots(open_files(roots), table) if roots else FilesBeside(table)


@dataclass(frozen=True)
class _Found:
    """Row number to the name of its image; the rows without one; lines for the screen."""

    names: dict[int, str]
    problems: list[Problem]
    notes: list[str]


def _find_images(place: _Roots | FilesBeside, table: Table, rows: Mapping[int, Record]) -> _Found:
    found, notes = find_named(place, table, {number: row.name for number, row in rows.items()})
    names = {number: same[0] for number, same in found.items() if len(same) == 1}
    lost = {number: rows[number].name for number in rows if number not in names}
    problems = []
    for number, path in lost.items():
        same = found[number]
        reason = f"{len(same)} images could be" if same else "there is no image"
        problems.append(Problem(table.row_name(number), f"{reason} '{path}'"))
    if lost:
        example = next(iter(lost.values()))
        notes.append(f"{len(lost)} rows of {table.name} have no image, such as '{example}'")
    return _Found(names, problems, notes)


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
