"""Images of a run, found again by their content."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from configs.errors import DataError, RunError
from configs.schema import DataConfig
from ensemble.data.decoding import ImageError
from ensemble.data.files import is_image
from ensemble.data.inspection import Images, inspect_dataset
from ensemble.data.labels import fold, map_classes
from ensemble.data.leakage import KINDS, Duplicate
from ensemble.data.loading import (
    Dataset,
    Split,
    choose_source,
    load_collection,
    load_labelled,
    locate,
    short_name,
)
from ensemble.data.reading import content_digest, map_ahead
from ensemble.data.registry import Collection, ImageStore, Location, Problem, Record
from ensemble.faces.store import face_images
from ensemble.runs.run import Run

_GONE, _CHANGED = "missing or unreadable", "changed since the training"
_RELABELLED = "of another class now"
Row = Mapping[str, str]


@dataclass(frozen=True, eq=False)
class RecordedSplit:
    """The images of one split of a run that are still available.

    Args:
        name: Short name of the data.
        split: The images that were found, under their recorded names and labels.
        current: Recorded name to the present name of each image that was found.
        lost: Rows of `split.csv` whose images were not found.
        problems: The images that were not found, and why.
        facts: Lines for reports: heading to text.
    """

    name: str
    split: Split
    current: Mapping[str, str]
    lost: Sequence[Row] = ()
    problems: Sequence[Problem] = ()
    facts: Mapping[str, str] = field(default_factory=dict)


def read_split_rows(run: Run, part: str | None = None) -> list[dict[str, str]]:
    """Returns the rows of one split, or all rows, in a run's `split.csv`."""
    rows = run.read_table("split.csv")
    if rows and not {"path", "label", "split"} <= rows[0].keys():
        raise RunError(
            f"{run.folder / 'split.csv'} lacks one of the columns path, label and split. "
            "Restore the file, or train again."
        )
    return [row for row in rows if part in (None, row["split"])]


def read_duplicates(run: Run) -> list[Duplicate]:
    """Returns the images that are in several splits of a run."""
    if not (run.folder / "duplicates.csv").is_file():
        return []
    return [
        Duplicate(row["path"], row["split"], row["repeats"], row["in"], kind)
        for row in run.read_table("duplicates.csv")
        for kind in KINDS
        if row["kind"] == kind
    ]


def read_recorded_images(run: Run, config: DataConfig) -> tuple[Dataset, Images]:
    """Reads the data of a run as it was split when the run began.

    Images that were added since are not used. What was left out then is still reported.

    Args:
        run: A run with a `split.csv`.
        config: Its data.

    Raises:
        DataError: If the data cannot be read.
        RunError: If a recorded image is missing, or it or its class has changed.
    """
    rows = read_split_rows(run)
    labelled = load_labelled(
        locate(config),
        source=config.source,
        classes=config.classes or sorted({row["label"] for row in rows}, key=str.casefold),
        merge=config.merge,
    )
    images = face_images(labelled.rows.images, config.faces)
    current, problems = _find_images(rows, images, labelled.rows.names)
    places = {name: place for place, name in enumerate(labelled.rows.names)}
    labels = {name: labelled.classes[labelled.rows.labels[place]] for name, place in places.items()}
    problems += [
        Problem(row["path"], _RELABELLED)
        for row in rows
        if row["path"] in current and labels.get(current[row["path"]]) != row["label"]
    ]
    if problems:
        raise RunError(
            f"{len(problems):,} of the {len(rows):,} images that {run.folder} was begun with are "
            f"not as they were ({_count(problems)}), such as {problems[0].name}. "
            f"Restore them, or train anew with --config {run.folder / 'config.yaml'}."
        )

    def select(part: str) -> Split:
        names = tuple(row["path"] for row in rows if row["split"] == part)
        split = labelled.rows.select([places[current[name]] for name in names])
        return replace(split, images=_Renamed(images, current), names=names)

    dataset = Dataset(
        labelled.name,
        labelled.classes,
        select("train"),
        select("validation"),
        select("test") if any(row["split"] == "test" for row in rows) else None,
        _read_problems(run),
        [*labelled.notes, f"the {len(rows):,} images in split.csv are used, and no others"],
        labelled.facts,
        labelled.synthetic,
    )
    duplicates = read_duplicates(run)
    repeated = {duplicate.name for duplicate in duplicates if duplicate.split == "train"}
    dropped = len(repeated - set(dataset.train.names))
    return dataset, replace(
        inspect_dataset(dataset, config), duplicates=duplicates, dropped=dropped
    )


def recorded_split(run: Run, part: str, classes: Sequence[str]) -> RecordedSplit:
    """Finds the images of one split of a run by the digests in its `split.csv`.

    An image that was renamed or moved within the data is found by its content. Without
    digests, as in runs of earlier versions, images are found by name.

    Args:
        run: The run.
        part: "train", "validation" or "test".
        classes: Classes of the run, in order.

    Raises:
        DataError: If the data cannot be read, or none of the images is found.
        RunError: If `split.csv` is damaged.
    """
    rows = read_split_rows(run, part)
    if not rows:
        raise DataError(f"{run.name} has no {part} images. Choose another --split.")
    config = run.config.data
    location = locate(config)
    name, collection = _read_collection(location, config.source)
    images = face_images(collection.images, config.faces)
    names = [record.name for record in collection.records]
    current, problems = _find_images(rows, images, names)
    found = [row for row in rows if row["path"] in current]
    if not found:
        raise DataError(
            f"None of the {len(rows):,} {part} images of {run.folder} was found in "
            f"{', '.join(map(str, config.root)) or name}: {_count(problems)}. "
            "Restore the images, or evaluate other images with --data."
        )
    facts = _describe(rows, current, problems)
    if relabelled := _count_relabelled(found, current, collection, config):
        facts.append(f"{relabelled:,} have another label now, the recorded one counts")
    return RecordedSplit(
        name,
        _make_split(run, found, _Renamed(images, current), classes),
        current,
        [row for row in rows if row["path"] not in current],
        problems,
        {**collection.facts, "Split": "; ".join(facts)},
    )


def _read_collection(location: Location, source: str) -> tuple[str, Collection]:
    """Returns the short name and the images of data, without labels where no layout fits it."""
    try:
        spec = choose_source(location, source)
    except DataError:
        found = [Record(name, "") for name in location.files.names() if is_image(name)]
        if not found:
            raise
        facts = {"Layout": "not known any more; images were found by name and content"}
        return short_name(location), Collection(location.files, found, facts=facts)
    return short_name(location, spec), load_collection(location, spec)


@dataclass(frozen=True)
class _Renamed:
    """Reads images by their recorded names."""

    images: ImageStore
    current: Mapping[str, str]

    def read(self, name: str) -> bytes | np.ndarray:
        return self.images.read(self.current[name])


def _find_images(
    rows: Sequence[Row], images: ImageStore, present: Sequence[str]
) -> tuple[dict[str, str], list[Problem]]:
    """Returns recorded name to present name, and the images that were not found."""
    names = [row["path"] for row in rows]
    recorded = {row["path"]: row.get("sha256", "") for row in rows}
    digests = _digests(images, names)
    current = {
        name: name for name in names if digests[name] and recorded[name] in ("", digests[name])
    }
    wanted = {recorded[name] for name in names if name not in current} - {""}
    others = [name for name in present if name not in current]
    moved: dict[str, list[str]] = {}
    for name, digest in (_digests(images, others) if wanted else {}).items():
        moved.setdefault(digest, []).append(name)
    problems = []
    for name in names:
        if name in current:
            continue
        if same := moved.get(recorded[name]):
            current[name] = same.pop(0)
        else:
            problems.append(Problem(name, _CHANGED if digests[name] else _GONE))
    return current, problems


def _read_problems(run: Run) -> list[Problem]:
    """Returns the images and rows that were left out when the run began."""
    if not (run.folder / "bad_images.csv").is_file():
        return []
    return [Problem(row["path"], row["reason"]) for row in run.read_table("bad_images.csv")]


def _digests(images: ImageStore, names: Iterable[str]) -> dict[str, str]:
    """Returns the digest of each image, "" where it cannot be read."""

    def digest(name: str) -> str:
        try:
            return content_digest(images.read(name)).hex()
        except (ImageError, OSError):
            return ""

    names = list(names)
    return dict(zip(names, map_ahead(digest, names), strict=True))


def _make_split(run: Run, rows: Sequence[Row], images: ImageStore, classes: Sequence[str]) -> Split:
    try:
        return Split(
            images,
            tuple(row["path"] for row in rows),
            np.array([classes.index(row["label"]) for row in rows], np.int32),
            np.array([float(row.get("weight") or 1) for row in rows], np.float32),
            tuple(row.get("group") or None for row in rows),
        )
    except ValueError as error:
        raise RunError(
            f"{run.folder / 'split.csv'} does not fit the model ({error}). "
            "Restore the file, or train again."
        ) from error


def _describe(
    rows: Sequence[Row], current: Mapping[str, str], problems: Sequence[Problem]
) -> list[str]:
    """Returns how many of the recorded images were found, and how."""
    renamed = sum(name != now for name, now in current.items())
    parts = [f"{len(current):,} of the {len(rows):,} recorded images were found"]
    parts += [f"{renamed:,} of them under another name"] if renamed else []
    parts += [_count(problems)] if problems else []
    if not all(row.get("sha256") for row in rows):
        parts.append("their content could not be verified, as the run recorded no digests")
    return parts


def _count_relabelled(
    rows: Sequence[Row], current: Mapping[str, str], collection: Collection, config: DataConfig
) -> int:
    """Returns the number of images whose class in the data is not the recorded one."""
    labels = {record.name: record.label for record in collection.records}
    try:
        class_map = map_classes(labels.values(), classes=config.classes, merge=config.merge)
    except DataError:  # the data no longer has the classes of the run
        return 0
    known = [row for row in rows if current[row["path"]] in labels]
    places = [class_map.index(labels[current[row["path"]]]) for row in known]
    return sum(
        place is None or fold(class_map.names[place]) != fold(row["label"])
        for row, place in zip(known, places, strict=True)
    )


def _count(problems: Sequence[Problem]) -> str:
    """Returns how many images were not found for which reason."""
    reasons = Counter(problem.reason for problem in problems)
    return ", ".join(f"{count:,} {reason}" for reason, count in reasons.items())
