"""Evaluated images that the model was trained on."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from configs.errors import DataError
from ensemble.data.leakage import KINDS, Duplicate, Kind, find_duplicates
from ensemble.data.reading import Inspection, inspect
from ensemble.runs.recorded_split import Row, read_duplicates, read_split_rows, recorded_split
from ensemble.runs.run import Run

_EVALUATED = "evaluated"


@dataclass(frozen=True)
class TrainedOn:
    """Evaluated images that are exact, near or mirrored duplicates of training images.

    Args:
        duplicates: Pairs of a training image and an evaluated one.
        unreadable: Number of training images that cannot be read any more, of which only
            exact copies are found.
    """

    duplicates: Sequence[Duplicate]
    unreadable: int = 0

    @property
    def names(self) -> set[str]:
        """Names of the evaluated images that the model was trained on."""
        return {duplicate.other_name for duplicate in self.duplicates}

    @property
    def kinds(self) -> dict[Kind, int]:
        """Number of these images for each kind of duplicate; the closest one of an image counts."""
        closest = {
            duplicate.other_name: duplicate.kind
            for kind in reversed(KINDS)
            for duplicate in self.duplicates
            if duplicate.kind == kind
        }
        counts = Counter(closest.values())
        return {kind: counts[kind] for kind in KINDS if counts[kind]}

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values, ready for JSON."""
        return {
            "images": len(self.names),
            "kinds": self.kinds,
            "unreadable_training_images": self.unreadable,
        }


def find_trained_on(
    run: Run, inspection: Inspection, image_size: int, classes: Sequence[str]
) -> TrainedOn:
    """Searches evaluated images for duplicates of a run's training images.

    Args:
        run: The run.
        inspection: The evaluated images.
        image_size: Height and width in pixels.
        classes: Classes of the run, in order.

    Raises:
        RunError: If the run's `split.csv` is damaged.
    """
    duplicates: list[Duplicate] = []
    lost: Sequence[Row]
    try:
        recorded = recorded_split(run, "train", classes)
    except DataError:  # the data of the run is gone
        lost = read_split_rows(run, "train")
    else:
        lost = recorded.lost
        train = inspect(recorded.split, image_size, label="Reading training images")
        duplicates = find_duplicates({"train": train, _EVALUATED: inspection})
    names = {row["sha256"]: row["path"] for row in lost if row.get("sha256")}
    duplicates += [
        Duplicate(names[digest.hex()], "train", name, _EVALUATED, "exact")
        for name, digest in zip(inspection.readable.names, inspection.digests, strict=True)
        if digest.hex() in names
    ]
    return TrainedOn(duplicates, len(lost))


def recorded_trained_on(run: Run, part: str, names: Sequence[str]) -> TrainedOn:
    """Returns which images of a run's own split are training images or duplicates of them.

    Args:
        run: The run.
        part: "train", "validation" or "test".
        names: The evaluated images of that split.

    Raises:
        RunError: If a table of the run is damaged.
    """
    if part == "train":
        return TrainedOn([Duplicate(name, part, name, part, "exact") for name in names])
    duplicates = read_duplicates(run)
    if not duplicates:
        return TrainedOn([])
    trained, evaluated = {row["path"] for row in read_split_rows(run, "train")}, set(names)
    return TrainedOn(
        [
            duplicate
            for duplicate in duplicates
            if duplicate.split == "train"
            and duplicate.other_split == part
            and duplicate.name in trained
            and duplicate.other_name in evaluated
        ]
    )
