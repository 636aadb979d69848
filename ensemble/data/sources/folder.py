"""Class folders: `train/happy/1.png`, or `happy/1.png` where the data has no splits yet."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import PurePosixPath
from posixpath import join
from typing import Literal, NamedTuple

from configs.errors import DataError
from ensemble.data.files import Files, is_image
from ensemble.data.labels import is_emotion
from ensemble.data.outputs import find_output
from ensemble.data.registry import (
    Collection,
    DatasetSpec,
    Location,
    Record,
    register_source,
)
from ensemble.data.splits import find_split, resembles_split
from ensemble.data.tables import Table, find_tables

Level = Literal["skipped", "split", "subject", "class"]

_SUBJECT = re.compile(
    r"(s|sub|subj|subject|p|person|participant|actor|user|id|individual)[ _-]?\d+", re.IGNORECASE
)
_SOURCES_OF_CODES = {"0123456": "affectnet", "01234567": "affectnet", "1234567": "rafdb"}
_THUMBNAILS = frozenset({"thumbnail", "thumbnails", "thumbs"})
_ABOUT_IMAGES = re.compile("path|image|img|file|photo|pic|label|emotion|expression|class|categor")
_LOOKED_AT = 100  # rows of a table
_SHOWN = 3  # names in a message


class Place(NamedTuple):
    """What the folders around an image say of it."""

    label: str
    split: str | None = None
    subject: str | None = None


@dataclass(frozen=True)
class Layout:
    """What each level of folders in a root stands for.

    Args:
        above: What stands before a path in the root: the root's own name if
            that is a split's, as in `--data faces/train,faces/val`.
        levels: From the top down to the last level that says something.
    """

    above: tuple[str, ...]
    levels: tuple[Level, ...]

    def read(self, folder: str) -> Place | None:
        """Returns what a folder says of the images in it; None: it belongs to no class."""
        parts = (*self.above, *PurePosixPath(folder).parts)
        names = dict(zip(self.levels, parts, strict=False))
        if "class" not in names or _holds_thumbnails(parts):
            return None
        split = find_split(names["split"]) if "split" in names else None
        if "split" in self.levels and split is None:
            return None
        return Place(names["class"], split, names.get("subject"))


def matches(location: Location) -> bool:
    """Returns whether there are two class folders or more.

    Raises:
        DataError: If the folders may be something else than classes.
    """
    if location.labels or not location.files.roots:
        return False
    files = location.files
    layouts = find_layouts(files)
    records = read_records(files, layouts)
    labels = {record.label for record in records}
    if len(labels) > 1 and (doubt := _find_doubt(location, layouts, labels)):
        raise DataError(doubt)
    return len(labels) > 1


def load(location: Location) -> Collection:
    """Reads class folders, with or without folders of splits around or in them.

    An image in a folder below a class folder belongs to that class.

    Raises:
        DataError: If a class folder has no image, or if labels are given as well.
    """
    return _load(location, "class")


def has_subjects(location: Location) -> bool:
    """Returns whether the folders are those of persons, with folders of emotions in them."""
    if location.labels:
        return False
    records = read_records(location.files, find_layouts(location.files, "subject"))
    labels, subjects = {r.label for r in records}, {r.group for r in records if r.group}
    return len(labels) > 1 and all(map(is_emotion, labels)) and all(map(_is_subject, subjects))


def load_subjects(location: Location) -> Collection:
    """Reads class folders that lie in folders of persons, who are the groups.

    Raises:
        DataError: As `load`.
    """
    return _load(location, "subject")


def find_layouts(files: Files, top: Literal["class", "subject"] = "class") -> dict[str, Layout]:
    """Finds what the folders of each root stand for.

    Args:
        files: Listed roots.
        top: What the first folders are that are no splits.

    Returns:
        Prefix of a root to its layout.
    """
    layouts = {}
    for prefix, root in files.roots.items():
        named = len(files.roots) > 1 and find_split(root.path.stem)
        above = (root.path.stem,) if named else ()
        folders = {PurePosixPath(entry).parent for entry in root.entries if is_image(entry)}
        paths = [(*above, *f.parts) for f in folders if not _holds_thumbnails(f.parts)]
        layouts[prefix] = Layout(above, _find_levels(paths, top))
    return layouts


def read_records(files: Files, layouts: dict[str, Layout]) -> list[Record]:
    """Returns a record for each image in a class folder, sorted by name."""
    records = []
    for prefix, root in files.roots.items():
        for entry in filter(is_image, root.entries):
            place = layouts[prefix].read(str(PurePosixPath(entry).parent))
            if place is not None:
                records.append(Record(join(prefix, entry), *place))
    return sorted(records, key=lambda record: record.name)


def _load(location: Location, top: Literal["class", "subject"]) -> Collection:
    if location.labels:
        raise DataError(
            f"Class folders need no labels. Received: '{location.labels}'. Leave out --labels."
        )
    files = location.files
    layouts = find_layouts(files, top)
    records = read_records(files, layouts)
    _check_empty_classes(files, layouts, {record.label for record in records})

    images = list(filter(is_image, files.names()))
    labelled = {record.name for record in records}
    outside = Counter(str(PurePosixPath(name).parent) for name in images if name not in labelled)
    notes = list(files.notes)
    if others := len(files.names()) - len(images):
        notes.append(f"{others} files that are no images are ignored")
    if outside:
        places = ", ".join(f"{folder}/ {count}" for folder, count in outside.most_common(5))
        more = f" and {len(outside) - 5} more folders" if len(outside) > 5 else ""
        notes.append(
            f"{outside.total()} images outside of class folders are ignored ({places}{more})"
        )
    return Collection(files, records, files.problems, notes)


def _find_levels(
    paths: list[tuple[str, ...]], top: Literal["class", "subject"]
) -> tuple[Level, ...]:
    """Descends from the root to where the paths of images first part or name a split."""
    levels: list[Level] = []
    while True:
        paths = [path for path in paths if path]
        tops = {path[0] for path in paths}
        splits = {find_split(name) for name in tops}
        if len(tops) != 1 or None not in splits or max(map(len, paths)) == 1:
            break
        levels.append("skipped")
        paths = [path[1:] for path in paths]
    flat = all(len(path) == 1 for path in paths if find_split(path[0]))
    is_class = splits == {"train", None} and flat  # `train` beside `bus` and `car`
    if tops and (None not in splits or ("train" in splits and not is_class)):
        levels.append("split")
        paths = [path for path in paths if find_split(path[0]) and len(path) > 1]
        while paths and _is_passage(paths):
            levels.append("skipped")
            paths = [(path[0], *path[2:]) for path in paths]
        return (*levels, *_find_inner_levels([path[1:] for path in paths], top))
    return (*levels, *_find_inner_levels(paths, top))


def _is_passage(paths: list[tuple[str, ...]]) -> bool:
    """Returns whether each split holds a single folder that holds all of its folders."""
    inner = {path[:2] for path in paths}
    alone = len(inner) == len({path[0] for path in paths})
    return alone and min(map(len, paths)) > 2


def _find_inner_levels(
    paths: list[tuple[str, ...]], top: Literal["class", "subject"]
) -> tuple[Level, ...]:
    if top == "subject":
        return "subject", "class"
    below = [path[1:] for path in paths]
    if below and all(len(path) == 1 and find_split(path[0]) for path in below):
        return "class", "split"
    if all(is_emotion(path[0]) for path in paths) and all(_is_subject(p[0]) for p in below if p):
        return "class", "subject"
    return ("class",)


def _is_subject(name: str) -> bool:
    return bool(_SUBJECT.fullmatch(name))


def _holds_thumbnails(parts: tuple[str, ...]) -> bool:
    return any(part.lower() in _THUMBNAILS for part in parts)


def _may_label(table: Table, images: set[str]) -> bool:
    """Returns whether a table may be about images: by its header, or as it names some of them."""
    if any(map(_ABOUT_IMAGES.search, table.columns)):
        return True
    rows = [table.columns, *(row.values() for _, row in islice(table.values(), _LOOKED_AT))]
    return any(PurePosixPath(str(cell)).name in images for row in rows for cell in row)


def _find_doubt(location: Location, layouts: dict[str, Layout], labels: set[str]) -> str | None:
    """Returns why the classes may not be what the folders are called; None: they are."""
    files = location.files
    unread = _find_unread_splits(files, layouts, labels)
    if unread:
        return (
            f"{_show(unread)} {_are(unread)} called like a split, but cannot be read as one. "
            "Call it train, val, test, training_set, val_images or the like, with a folder for "
            "each class in it, list the images in a CSV with path, label and split for --labels, "
            "or read the folders as classes with --source folder."
        )
    inner = _find_recurring(files, layouts, labels)
    if inner and all(map(find_split, inner)):
        return (
            f"{_show(labels)} each hold folders of splits, {_show(inner)}. Give one of them as "
            "--data, or read them as classes with --source folder."
        )
    if inner:
        return (
            f"Two readings fit: the classes are {_show(labels)} (--source folder), or they are "
            f"{_show(inner)}, which recur one level down, and the folders above are groups, "
            "such as persons or folds (--source subjects). Where those hold copies or parts of "
            "the data, give one of them as --data."
        )
    if all(map(_is_subject, labels)):
        return (
            f"{_show(labels)} are called like persons, not like classes. Give a CSV with path "
            "and label as --labels, or read the folders as classes with --source folder."
        )
    own = find_output(files.names())  # a set of faces that the user sorted into classes
    images = {PurePosixPath(name).name for name in files.names() if is_image(name)}
    tables = {
        table.name for table in find_tables(location, lambda table: _may_label(table, images))
    } - (own.files if own else frozenset())
    if tables and not all(map(is_emotion, labels)):
        return (
            f"The classes may be {_show(labels)}, as the folders are called, or stand in "
            f"{_show(tables)}, whose columns are not known. Call them path and label, or read "
            "the folders as classes with --source folder."
        )
    source = _SOURCES_OF_CODES.get("".join(sorted(labels)))
    return source and (
        f"The folders {_show(labels)} are numbered like the emotions of a data set. Read the "
        f"numbers as its codes with --source {source}, or as classes with --source folder."
    )


def _find_unread_splits(files: Files, layouts: dict[str, Layout], labels: set[str]) -> set[str]:
    """Returns the folders and roots that resemble a split and are not read as one."""
    names = set(labels)
    for prefix, root in files.roots.items():
        layout = layouts[prefix]
        if len(files.roots) > 1 and not layout.above:
            names.add(root.path.stem)
        if "split" in layout.levels and not layout.above:
            level = layout.levels.index("split")
            parts = (PurePosixPath(entry).parent.parts for entry in filter(is_image, root.entries))
            tops = {path[level] for path in parts if len(path) > level}
            names |= {name for name in tops if find_split(name) is None}
    return set(filter(resembles_split, names))


def _find_recurring(files: Files, layouts: dict[str, Layout], labels: set[str]) -> set[str]:
    """Returns the folders that lie in several classes, or are called like one and lie in one."""
    homes = defaultdict(set)
    for prefix, root in files.roots.items():
        layout = layouts[prefix]
        for entry in filter(is_image, root.entries):
            folder = str(PurePosixPath(entry).parent)
            place = layout.read(folder)
            below = (*layout.above, *PurePosixPath(folder).parts)[len(layout.levels) :]
            if place is not None and below:
                homes[below[0]].add(place.label)
    known = all(map(is_emotion, labels))
    return {
        name
        for name, found in homes.items()
        if (len(found) > 1 and not (known and find_split(name) is None))
        or (name in labels and found != {name})
    }


def _check_empty_classes(files: Files, layouts: dict[str, Layout], labels: set[str]) -> None:
    for prefix, root in files.roots.items():
        for folder in sorted(root.folders):
            place = layouts[prefix].read(folder)
            if place is not None and place.label not in labels:
                raise DataError(
                    f"Class '{place.label}' has no image in '{join(prefix, folder)}'. "
                    "Add images or remove the folder."
                )


def _show(names: Iterable[str]) -> str:
    names = sorted(names)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(f"'{name}'" for name in names[:_SHOWN]) + more


def _are(names: set[str]) -> str:
    return "is" if len(names) == 1 else "are"


register_source(
    DatasetSpec(
        name="folder",
        summary="class folders, below train, val and test or directly",
        matches=matches,
        load=load,
        priority=60,
    )
)
register_source(
    DatasetSpec(
        name="subjects",
        summary="class folders in a folder for each person, as in S001/happy/1.png",
        matches=has_subjects,
        load=load_subjects,
        priority=55,
    )
)
