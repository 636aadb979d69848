"""Class folders: `train/happy/1.png`, or `happy/1.png` where the split is still to be drawn."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from posixpath import join

from configs.errors import DataError
from ensemble.datasets.files import Files, is_image, open_files
from ensemble.datasets.registry import (
    Collection,
    DatasetSpec,
    Location,
    Record,
    register_source,
)
from ensemble.datasets.splits import find_split
from ensemble.datasets.tables import Table, find_tables


@dataclass(frozen=True)
class Layout:
    """Where the folders of splits and classes are in a root.

    Args:
        above: What stands before a path in the root: the root's own name if
            that is a split's, as in `--data faces/train,faces/val`.
        trunk: Leading folders to pass over, as archives often have.
        has_splits: Whether folders of splits stand above the class folders.
    """

    above: tuple[str, ...]
    trunk: tuple[str, ...]
    has_splits: bool

    def read(self, folder: str) -> tuple[str | None, str] | None:
        """Returns the split and the class of a folder; None: it belongs to no class."""
        parts = (*self.above, *PurePosixPath(folder).parts)
        if parts[: len(self.trunk)] != self.trunk:
            return None
        parts = parts[len(self.trunk) :]
        split = find_split(parts[0]) if self.has_splits and parts else None
        if self.has_splits:
            return (split, parts[1]) if split and len(parts) > 1 else None
        return (None, parts[0]) if parts else None


def matches(location: Location) -> bool:
    """Returns whether there are two class folders or more, and no table to read instead."""
    tables = location.labels or any(root.suffix.lower() == ".csv" for root in location.roots)
    if tables or not location.roots or find_tables(location, _is_face_set):
        return False
    files = open_files(location.roots)
    return len({record.label for record in _read_records(files, _find_layouts(files))}) > 1


def load(location: Location) -> Collection:
    """Reads class folders, with or without folders of splits above them.

    An image in a folder below a class folder belongs to that class.

    Raises:
        DataError: If a class folder has no image, or if labels are given as well.
    """
    if location.labels:
        raise DataError(
            f"Class folders need no labels. Received: '{location.labels}'. Leave out --labels."
        )
    files = open_files(location.roots)
    layouts = _find_layouts(files)
    records = _read_records(files, layouts)
    _refuse_empty_classes(files, layouts, {record.label for record in records})

    images = sum(map(is_image, files.names()))
    ignored = {
        "files that are no images": len(files.names()) - images,
        "images outside of class folders": images - len(records),
    }
    notes = [f"{count} {what} are ignored" for what, count in ignored.items() if count]
    return Collection(files, records, files.problems, notes)


def _is_face_set(table: Table) -> bool:
    """Returns whether a table says more of the images than their folders do: of groups."""
    return {"path", "label", "group", "source", "status"} <= set(table.columns)


def _find_layouts(files: Files) -> dict[str, Layout]:
    layouts = {}
    for prefix, root in files.roots.items():
        named = len(files.roots) > 1 and find_split(root.path.stem)
        above = (root.path.stem,) if named else ()
        folders = {str(PurePosixPath(entry).parent) for entry in root.entries if is_image(entry)}
        layouts[prefix] = _find_layout(above, folders)
    return layouts


def _find_layout(above: tuple[str, ...], folders: Iterable[str]) -> Layout:
    """Descends from the root to where the paths of images first part or name a split."""
    paths = [(*above, *PurePosixPath(folder).parts) for folder in folders]
    trunk: tuple[str, ...] = ()
    while True:
        paths = [path for path in paths if path]
        tops = {path[0] for path in paths}
        splits = {find_split(top) for top in tops}
        if len(tops) != 1 or None not in splits or max(map(len, paths)) == 1:
            has_splits = bool(tops) and ("train" in splits or None not in splits)
            return Layout(above, trunk, has_splits)
        trunk += tuple(tops)
        paths = [path[1:] for path in paths]


def _read_records(files: Files, layouts: dict[str, Layout]) -> list[Record]:
    records = []
    for prefix, root in files.roots.items():
        for entry in filter(is_image, root.entries):
            place = layouts[prefix].read(str(PurePosixPath(entry).parent))
            if place is not None:
                split, label = place
                records.append(Record(join(prefix, entry), label, split))
    return sorted(records, key=lambda record: record.name)


def _refuse_empty_classes(files: Files, layouts: dict[str, Layout], labels: set[str]) -> None:
    for prefix, root in files.roots.items():
        for folder in sorted(root.folders):
            place = layouts[prefix].read(folder)
            if place is not None and place[1] not in labels:
                raise DataError(
                    f"Class '{place[1]}' has no image in '{join(prefix, folder)}'. "
                    "Add images or remove the folder."
                )


register_source(
    DatasetSpec(
        name="folder",
        summary="class folders, below train, val and test or directly",
        matches=matches,
        load=load,
        priority=30,
    )
)
