"""Data sets as on the Hugging Face hub: metadata files beside images, or images in Parquet."""

import posixpath
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from configs.errors import DataError
from ensemble.data.files import is_table
from ensemble.data.registry import (
    Collection,
    DatasetSpec,
    Location,
    Problem,
    Record,
    register_source,
)
from ensemble.data.splits import find_split
from ensemble.data.tables import Table, open_inner_table, open_table

_METADATA = frozenset({"metadata.csv", "metadata.jsonl"})


@dataclass(frozen=True)
class StoredImages:
    """Encoded images by name."""

    contents: Mapping[str, bytes]

    def read(self, name: str) -> bytes:
        """Returns an encoded image.

        Raises:
            FileNotFoundError: If there is none of that name.
        """
        if name not in self.contents:
            raise FileNotFoundError(f"there is no image '{name}'")
        return self.contents[name]


def has_metadata(location: Location) -> bool:
    """Returns whether there are metadata files with file_name and a label."""
    return not location.labels and bool(_open_metadata(location))


def load_metadata(location: Location) -> Collection:
    """Reads the rows of all metadata files; the folders around one name its split.

    Raises:
        DataError: If there is no such file.
    """
    tables = _open_metadata(location)
    if not tables:
        raise DataError("There is no metadata.csv or metadata.jsonl with file_name and a label.")
    files, names = location.files, set(location.files.names())
    records: dict[str, Record] = {}
    problems = []
    for table in tables:
        for number, row in table.rows():
            image = posixpath.normpath(
                posixpath.join(posixpath.dirname(table.name), row["file_name"])
            )
            label = row[table.meanings["label"]]
            if image not in names or image in records or not label:
                reason = f"no image, no label or a second row: '{image}'"
                problems.append(Problem(table.row_name(number), reason))
                continue
            split = row.get(table.meanings.get("split", ""), "")
            group = row.get(table.meanings.get("group", ""), "")
            part = find_split(split) or _find_split(PurePosixPath(image).parent.parts)
            records[image] = Record(image, label, part, group or None)
    return Collection(files, list(records.values()), files.problems + problems, files.notes)


def has_parquet(location: Location) -> bool:
    """Returns whether there are Parquet files, and the first one holds images, not their paths."""
    if location.labels or not _parquet_names(location):
        return False
    table = _open_parquet(location)[0]
    _, row = next(table.values(), (1, {}))
    return _image_bytes(row.get(table.meanings.get("path", ""))) is not None


def load_parquet(location: Location) -> Collection:
    """Reads images, as bytes, and labels from all Parquet files; their names hold the splits.

    Raises:
        DataError: If a file has no column of images or of labels.
    """
    contents: dict[str, bytes] = {}
    records, problems = [], []
    for table in _open_parquet(location):
        label = table.meanings.get("label")
        image = table.meanings.get("path")
        if label is None or image is None:
            raise DataError(
                f"'{table.name}' needs the columns image and label. It has "
                f"{', '.join(table.columns)}."
            )
        split = _find_split((*PurePosixPath(table.name).parent.parts, _stem(table.name)))
        for number, row in table.values():
            name = table.row_name(number)
            data = _image_bytes(row[image])
            if data is None or row[label] is None:
                problems.append(Problem(name, "no bytes of an image, or no label"))
                continue
            contents[name] = data
            records.append(Record(name, str(row[label]), split))
    return Collection(StoredImages(contents), records, problems)


def _image_bytes(value: object) -> bytes | None:
    data = value.get("bytes") if isinstance(value, dict) else value
    return data if isinstance(data, bytes) else None


def _open_metadata(location: Location) -> list[Table]:
    names = [n for n in location.files.names() if PurePosixPath(n).name.lower() in _METADATA]
    tables = [open_inner_table(location.files, name) for name in names]
    return [t for t in tables if "file_name" in t.columns and "label" in t.meanings]


def _parquet_names(location: Location) -> list[str]:
    roots = [str(root) for root in location.roots if is_table(root)]
    return [n for n in [*roots, *location.files.names()] if n.lower().endswith(".parquet")]


def _open_parquet(location: Location) -> list[Table]:
    inner = set(location.files.names())
    return [
        open_inner_table(location.files, name) if name in inner else open_table(Path(name))
        for name in _parquet_names(location)
    ]


def _find_split(names: Iterable[str]) -> str | None:
    return next(filter(None, map(find_split, names)), None)


def _stem(name: str) -> str:
    """Returns a file's name up to its shard, as "train" of train-00000-of-00001.parquet."""
    return PurePosixPath(name).stem.partition("-0")[0]


register_source(
    DatasetSpec(
        name="imagefolder",
        summary="images with metadata.csv or metadata.jsonl (file_name, label) in their folders",
        matches=has_metadata,
        load=load_metadata,
        priority=28,
    )
)
register_source(
    DatasetSpec(
        name="parquet",
        summary="Parquet files with the bytes of images and labels",
        matches=has_parquet,
        load=load_parquet,
        priority=45,
    )
)
