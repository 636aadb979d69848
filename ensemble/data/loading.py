"""A location becomes a dataset: integer labels, and splits that share no group."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from configs.errors import DataError
from configs.schema import DataConfig
from ensemble.data.labels import ClassMap, map_classes, share_classes
from ensemble.data.location import find_missing
from ensemble.data.overview import describe_found
from ensemble.data.registry import (
    SOURCES,
    Collection,
    DatasetSpec,
    ImageStore,
    Location,
    Problem,
    Record,
)
from ensemble.data.splits import sample_validation

_VALIDATION_FRACTION = 0.2


@dataclass(frozen=True, eq=False)
class Split:
    """Images with their labels; element `i` of every sequence belongs to image `i`.

    Args:
        images: Reads an image by its name.
        names: Names of the images in the store.
        labels: Class indices of shape `(n,)`, int32.
        weights: What an image counts in the loss, of shape `(n,)`, float32, >= 0.
        groups: The group of each image, or None.
        votes: Votes for each class, of shape `(n, classes)`, float32, where every
            image has at least one; else None.
    """

    images: ImageStore
    names: tuple[str, ...]
    labels: np.ndarray
    weights: np.ndarray
    groups: tuple[str | None, ...]
    votes: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.names)

    def select(self, indices: Sequence[int] | np.ndarray) -> "Split":
        """Returns the split of these rows, in the order of `indices`."""
        return Split(
            self.images,
            tuple(self.names[index] for index in indices),
            self.labels[indices],
            self.weights[indices],
            tuple(self.groups[index] for index in indices),
            None if self.votes is None else self.votes[indices],
        )


@dataclass(frozen=True, eq=False)
class Labelled:
    """Labelled images as the data gives them.

    Args:
        name: A short name for run folders.
        classes: Names of the classes; a label is a place in it.
        rows: All images.
        parts: The split of each image, shape `(n,)`: "train" where the data does not say.
        problems: Images and rows that are left out, and why.
        notes: Lines for the screen: what was joined or ignored.
        facts: Lines for reports: heading to text.
        synthetic: Whether the images are synthetic.
    """

    name: str
    classes: tuple[str, ...]
    rows: Split
    parts: np.ndarray
    problems: list[Problem]
    notes: list[str]
    facts: Mapping[str, str]
    synthetic: bool

    def select(self, part: str) -> Split:
        """Returns the images of "train", "validation" or "test", or "all" of them."""
        if part == "all":
            return self.rows
        return self.rows.select(np.flatnonzero(self.parts == part))


@dataclass(frozen=True, eq=False)
class Dataset:
    """What is trained on and evaluated.

    Args:
        name: A short name for run folders.
        classes: Names of the classes; a label is a place in it.
        train: Has at least one image of every class.
        validation: Given by the data or sampled from its training images.
        test: None where the data has none.
        problems: Images and rows that are left out, and why.
        notes: Lines for the screen: what was joined, sampled or ignored.
        facts: Lines for reports: heading to text.
        synthetic: Whether the images are synthetic.
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    validation: Split
    test: Split | None
    problems: list[Problem]
    notes: list[str]
    facts: Mapping[str, str]
    synthetic: bool


def load_dataset(
    location: Location,
    *,
    source: str = "auto",
    classes: Sequence[str] = (),
    merge: Mapping[str, Sequence[str]] | None = None,
    validation_fraction: float = _VALIDATION_FRACTION,
    seed: int = 1,
) -> Dataset:
    """Finds images and labels, decides on the classes and splits them.

    No image is decoded. Splits that the data names are kept; where it names no
    validation split, one is sampled from the training images, by class and
    without parting a group. The result depends on the data, not on the order
    in which a file system lists it.

    Args:
        location: Where the data is.
        source: Name of a source, or "auto" for the first one that matches.
        classes: Classes to keep, in this order; empty keeps all.
        merge: New class to the classes it is made of.
        validation_fraction: Share of each class to sample, between 0 and 1.
        seed: Random seed of the sample.

    Raises:
        ConfigError: If there is no source of that name.
        DataError: If the data cannot be found, read, labelled or split.
    """
    labelled = load_labelled(location, source=source, classes=classes, merge=merge)
    rows, parts, names = labelled.rows, labelled.parts, labelled.classes
    notes = list(labelled.notes)

    _check_groups(rows, parts)
    _check_trainable(rows, parts, names)
    if "validation" not in parts:
        parts = _sample(rows, parts, validation_fraction, seed)
        notes.append(f"{np.sum(parts == 'validation')} training images are sampled for validation")
    elif validation_fraction != _VALIDATION_FRACTION:
        notes.append(
            f"the validation fraction of {validation_fraction} has no effect, as the data names "
            "validation images"
        )
    if count := np.sum(parts == "test"):
        notes.append(f"{count} test images are set aside; ensemble.evaluate --split test uses them")
    notes += _note_absent(rows, parts, names)

    train, validation, test = (
        rows.select(np.flatnonzero(parts == part)) for part in ("train", "validation", "test")
    )
    return Dataset(
        labelled.name,
        names,
        train,
        validation,
        test if len(test) else None,
        labelled.problems,
        notes,
        labelled.facts,
        labelled.synthetic,
    )


def load_labelled(
    location: Location,
    *,
    source: str = "auto",
    classes: Sequence[str] = (),
    merge: Mapping[str, Sequence[str]] | None = None,
    shared: Mapping[str, Sequence[str]] | None = None,
) -> Labelled:
    """Finds images and labels and decides on the classes, without splitting them.

    Takes and raises what `load_dataset` does.

    Args:
        location: As there, and so the next three.
        source: Name of a source, or "auto".
        classes: Classes to keep.
        merge: New class to the classes it is made of.
        shared: Class to the labels that mean it; those of `classes` that the data
            lacks are then left out. None: the data must have all of them.
    """
    spec = choose_source(location, source)
    collection = load_collection(location, spec)
    found = collection.records

    labels = [record.label for record in found]
    if shared is None:
        class_map = map_classes(labels, classes=classes, merge=merge)
    else:
        class_map = share_classes(labels, classes=classes, mapping=shared)
    rows, parts = _tabulate(collection.images, found, class_map)
    return Labelled(
        short_name(location, spec),
        class_map.names,
        rows,
        parts,
        collection.problems,
        [*collection.notes, *class_map.notes, *_note_left_out(found, class_map)],
        collection.facts,
        collection.synthetic,
    )


def load_collection(location: Location, spec: DatasetSpec) -> Collection:
    """Finds images and labels as they stand in the data, sorted by name.

    Raises:
        DataError: If there is none, the location cannot be read, or it has no
            votes for its protocol to count.
    """
    collection = spec.load(location)
    if not collection.records:
        raise DataError(_no_images(location, spec, collection))
    if location.protocol != "majority" and not any(record.votes for record in collection.records):
        raise DataError(
            f"--protocol {location.protocol} counts the votes of several people on each image, "
            f"which {_describe(location)}, read as {spec.name}, does not have. Leave it out, or "
            "use FER+ with --labels fer2013new.csv."
        )
    found = sorted(collection.records, key=lambda record: record.name)
    return replace(collection, records=found)


def check_location(config: DataConfig) -> None:
    """Checks that the data is there and laid out in a known way, before anything heavy is loaded.

    Raises:
        DataError: If it is not.
    """
    location = locate(config)
    if missing := find_missing(location):
        raise DataError(" ".join(missing))
    if config.source == "auto":
        choose_source(location)


def locate(config: DataConfig) -> Location:
    """Returns where settings say the data is."""
    return Location(tuple(config.root), config.labels, config.protocol)


def find_source(location: Location) -> DatasetSpec | None:
    """Returns the source that a location looks like, None if it looks like none.

    Raises:
        DataError: If the location does not exist or cannot be listed.
    """
    return next((spec for spec in _by_priority() if spec.matches(location)), None)


def choose_source(location: Location, source: str = "auto") -> DatasetSpec:
    """Returns the source of a name, or for "auto" the first one whose layout a location has.

    Raises:
        ConfigError: If there is no source of that name.
        DataError: If no source fits, or the location cannot be listed.
    """
    spec = find_source(location) if source == "auto" else SOURCES.get(source)
    if spec is not None:
        return spec
    layouts = "; ".join(f"{spec.name} ({spec.summary})" for spec in _by_priority())
    raise DataError(
        f"No known layout fits {_describe(location)}. {describe_found(location)} "
        f"Known layouts: {layouts}. --source NAME reports what one of them lacks."
    )


def _by_priority() -> list[DatasetSpec]:
    return sorted(SOURCES, key=lambda spec: (spec.priority, spec.name))


def _describe(location: Location) -> str:
    roots = ", ".join(f"'{root}'" for root in location.roots) or "no data"
    return f"{roots} with labels '{location.labels}'" if location.labels else roots


def _no_images(location: Location, spec: DatasetSpec, collection: Collection) -> str:
    reasons = [f"{problem.name}: {problem.reason}" for problem in collection.problems[:1]]
    reasons += collection.notes
    details = f" ({'; '.join(reasons)})" if reasons else ""
    return f"There is no labelled image in {_describe(location)}, read as {spec.name}{details}."


def short_name(location: Location, spec: DatasetSpec | None = None) -> str:
    """Returns a name of the data for folders and reports."""
    if spec and not location.roots:
        return spec.name
    root = location.roots[0].resolve()
    return re.sub(r"[^\w.+-]+", "-", root.name if root.is_dir() else root.stem)


def _tabulate(
    images: ImageStore, records: Sequence[Record], class_map: ClassMap
) -> tuple[Split, np.ndarray]:
    """Returns the records of the classes as one table, and the split of each row."""
    labels = [class_map.index(record.label) for record in records]
    kept = [record for record, label in zip(records, labels, strict=True) if label is not None]
    rows = Split(
        images,
        tuple(record.name for record in kept),
        np.array([label for label in labels if label is not None], np.int32),
        np.array([record.weight for record in kept], np.float32),
        tuple(record.group for record in kept),
        _count_votes(kept, class_map),
    )
    return rows, np.array([record.split or "train" for record in kept], object)


def _count_votes(records: Sequence[Record], class_map: ClassMap) -> np.ndarray | None:
    """Returns the votes for the classes that are kept, None unless every record has some."""
    votes = np.zeros((len(records), len(class_map.names)), np.float32)
    for row, record in zip(votes, records, strict=True):
        for label, count in (record.votes or {}).items():
            index = class_map.index(label)
            if index is not None:
                row[index] += count
    return votes if votes.any(axis=1).all() else None


def _check_groups(rows: Split, parts: np.ndarray) -> None:
    homes: dict[str, str] = {}
    crossing: dict[str, str] = {}
    for group, part in zip(rows.groups, parts, strict=True):
        if group is not None and homes.setdefault(group, part) != part:
            crossing.setdefault(group, part)
    if crossing:
        group, part = next(iter(crossing.items()))
        more = f", and {len(crossing) - 1:,} more cross splits too" if len(crossing) > 1 else ""
        raise DataError(
            f"Group '{group}' has images in {homes[group]} and in {part}{more}. "
            "Move all images of a group to one split."
        )


def _check_trainable(rows: Split, parts: np.ndarray, classes: Sequence[str]) -> None:
    counts = np.bincount(rows.labels[parts == "train"], minlength=len(classes))
    if not counts.any():
        given = " and ".join(sorted(set(parts)))
        raise DataError(f"There are images for {given} only, none to train on. Add a train split.")
    others = " or ".join(sorted(set(parts) - {"train"}))
    shortages = {0: f"no training image{f', only images for {others}' if others else ''}"}
    if "validation" not in parts:
        shortages[1] = "a single training image, and one is needed for validation"
    for name, count in zip(classes, counts.tolist(), strict=True):
        if count in shortages:
            raise DataError(
                f"Class '{name}' has {shortages[count]}. "
                "Add images or leave the class out with --classes."
            )


def _sample(rows: Split, parts: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Returns `parts` with a share of the training images moved to validation."""
    train = np.flatnonzero(parts == "train")
    groups = [rows.groups[index] for index in train]
    sampled = sample_validation(rows.labels[train], groups, fraction, seed)
    parts = parts.copy()
    parts[train[sampled]] = "validation"
    return parts


def _note_left_out(records: Sequence[Record], class_map: ClassMap) -> list[str]:
    left_out = Counter(
        record.label.strip() for record in records if class_map.index(record.label) is None
    )
    if not left_out:
        return []
    counts = ", ".join(f"{label} {count}" for label, count in sorted(left_out.items()))
    return [f"{left_out.total()} images of other classes are left out: {counts}"]


def _note_absent(rows: Split, parts: np.ndarray, classes: Sequence[str]) -> list[str]:
    notes = []
    for part in sorted({"validation", "test"} & set(parts)):
        present = set(rows.labels[parts == part].tolist())
        absent = [name for index, name in enumerate(classes) if index not in present]
        if absent:
            notes.append(f"{part} has no image of {', '.join(absent)}")
    return notes
