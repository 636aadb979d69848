"""AffectNet: its tables, its files of annotations, or folders of its codes.

Mollahosseini et al., AffectNet: A Database for Facial Expression, Valence, and Arousal
Computing in the Wild, IEEE Transactions on Affective Computing 2019, arXiv:1708.03985.
"""

import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import PurePosixPath

import numpy as np

from configs.errors import DataError
from ensemble.data.files import Files, is_image
from ensemble.data.registry import (
    Collection,
    DatasetSpec,
    Location,
    Problem,
    Record,
    register_source,
)
from ensemble.data.sources.folder import find_layouts, read_records
from ensemble.data.splits import find_split
from ensemble.data.tables import Table, find_tables, open_images

# An emotion's place is its code; the last three are no emotions.
EMOTIONS = (
    *("neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger", "contempt"),
)
NO_EMOTIONS = ("none", "uncertain", "no face")

_PATH = "subdirectory_filepath"
_ANNOTATION = "_exp.npy"


def matches(location: Location) -> bool:
    """Returns whether there are AffectNet's tables, annotations, or folders under its name."""
    if find_tables(location, _is_affectnet):
        return True
    if location.labels:
        return False
    if any(_find_annotations(location.files)):
        return True
    return _is_named(location.files) and _has_codes(location.files)


def load(location: Location) -> Collection:
    """Reads all tables of the location, else all annotations, else the folders of codes.

    Raises:
        DataError: If there is none of them.
    """
    if tables := find_tables(location, _is_affectnet):
        return _load_tables(location, tables)
    files = location.files
    if annotations := dict(_find_annotations(files)):
        return _load_annotations(files, annotations)
    if not _has_codes(files):
        raise DataError(
            "There is no AffectNet: neither a CSV with subDirectory_filePath and expression, nor "
            "files such as annotations/0_exp.npy, nor folders called 0 to 7."
        )
    found = read_records(files, find_layouts(files))
    records = [replace(record, label=EMOTIONS[int(record.label)]) for record in found]
    return Collection(files, records, files.problems, files.notes)


def _is_affectnet(table: Table) -> bool:
    return {_PATH, "expression"} <= set(table.columns)


def _is_named(files: Files) -> bool:
    """Returns whether a root or an image's path is called after the data set."""
    roots = [PurePosixPath(root.absolute).name for root in files.roots.values()]
    return any("affectnet" in name.lower() for name in [*roots, *filter(is_image, files.names())])


def _has_codes(files: Files) -> bool:
    labels = {record.label for record in read_records(files, find_layouts(files))}
    return len(labels) > 1 and labels <= set(map(str, range(len(EMOTIONS))))


def _load_tables(location: Location, tables: list[Table]) -> Collection:
    files = open_images(location, tables[0])
    images = {"/".join(PurePosixPath(name).parts[-2:]): name for name in files.names()}
    width = len(tables[0].columns)
    for table in find_tables(location, lambda table: len(table.columns) == width):
        if not _is_affectnet(table):  # as that of validation images in some releases
            raise DataError(
                f"'{table.name}' has as many columns as {tables[0].name}, but no header. Put the "
                f"first line of {tables[0].name} before its rows, or remove the file."
            )
    records, problems = [], []
    left_out: Counter[str] = Counter()
    for table in tables:
        split = find_split(PurePosixPath(table.name).stem)
        for number, row in table.rows():
            path = "/".join(PurePosixPath(row[_PATH].replace("\\", "/")).parts[-2:])
            try:
                label = _read_code(row["expression"])
            except ValueError as error:
                problems.append(Problem(table.row_name(number), str(error)))
                continue
            if label in NO_EMOTIONS:
                left_out[label] += 1
            elif path in images:
                records.append(Record(images[path], label, split))
            else:
                problems.append(Problem(table.row_name(number), f"there is no image '{path}'"))
    notes = [f"{count} rows of '{label}' are left out" for label, count in left_out.items()]
    return Collection(files, records, files.problems + problems, files.notes + notes)


def _find_annotations(files: Files) -> Iterator[tuple[str, str]]:
    """Yields the name of each image and that of its annotation."""
    images = {str(PurePosixPath(n).with_suffix("")): n for n in filter(is_image, files.names())}
    for name in files.names():
        path = PurePosixPath(name)
        if name.endswith(_ANNOTATION) and path.parent.name == "annotations":
            image = path.parent.parent / "images" / path.name.removesuffix(_ANNOTATION)
            if str(image) in images:
                yield images[str(image)], name


def _load_annotations(files: Files, annotations: dict[str, str]) -> Collection:
    records, problems = [], []
    for image, name in annotations.items():
        try:
            code = str(np.load(io.BytesIO(files.read(name)), allow_pickle=False))
            label = _read_code(code)
        except (OSError, ValueError) as error:
            problems.append(Problem(name, str(error)))
            continue
        splits = filter(None, map(find_split, PurePosixPath(image).parts))
        records.append(Record(image, label, next(splits, None)))
    return Collection(files, records, files.problems + problems, files.notes)


def _read_code(code: str) -> str:
    labels = (*EMOTIONS, *NO_EMOTIONS)
    if not code.isdecimal() or int(code) >= len(labels):
        raise ValueError(f"the expression '{code}' is no number from 0 to {len(labels) - 1}")
    return labels[int(code)]


register_source(
    DatasetSpec(
        name="affectnet",
        summary="AffectNet: its CSVs, its annotations/*_exp.npy, or folders 0 to 7",
        matches=matches,
        load=load,
        priority=24,
    )
)
