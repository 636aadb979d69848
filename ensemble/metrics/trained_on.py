"""Evaluated images that the model was trained on."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from configs.errors import DataError
from ensemble.data.leakage import KINDS, Kind, Repeat, find_repeats
from ensemble.data.reading import Inspection, inspect
from ensemble.runs.recorded_split import Row, read_repeats, read_split_rows, recorded_split
from ensemble.runs.run import Run

_EVALUATED = "evaluated"


@dataclass(frozen=True)
class TrainedOn:
    """Evaluated images that are exact, near or mirrored duplicates of training images.

    Args:
        repeats: Pairs of a training image and an evaluated one.
        unreadable: Number of training images that cannot be read any more, of which only
            exact copies are found.
    """

    repeats: Sequence[Repeat]
    unreadable: int = 0

    @property
    def names(self) -> set[str]:
        """Names of the evaluated images that the model was trained on."""
        return {repeat.other_name for repeat in self.repeats}

    @property
    def kinds(self) -> dict[Kind, int]:
        """Number of these images for each kind of duplicate; the closest one of an image counts."""
        closest = {
            repeat.other_name: repeat.kind
            for kind in reversed(KINDS)
            for repeat in self.repeats
            if repeat.kind == kind
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
    repeats: list[Repeat] = []
    lost: Sequence[Row]
    try:
        recorded = recorded_split(run, "train", classes)
    except DataError:  # the data of the run is gone
        lost = read_split_rows(run, "train")
    else:
        lost = recorded.lost
        train = inspect(recorded.split, image_size, label="Reading training images")
        repeats = find_repeats({"train": train, _EVALUATED: inspection})
    names = {row["sha256"]: row["path"] for row in lost if row.get("sha256")}
    repeats += [
        Repeat(names[digest.hex()], "train", name, _EVALUATED, "exact")
        for name, digest in zip(inspection.readable.names, inspection.digests, strict=True)
        if digest.hex() in names
    ]
    return TrainedOn(repeats, len(lost))


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
        return TrainedOn([Repeat(name, part, name, part, "exact") for name in names])
    repeats = read_repeats(run)
    if not repeats:
        return TrainedOn([])
    trained, evaluated = {row["path"] for row in read_split_rows(run, "train")}, set(names)
    return TrainedOn(
        [
            repeat
            for repeat in repeats
            if repeat.split == "train"
            and repeat.other_split == part
            and repeat.name in trained
            and repeat.other_name in evaluated
        ]
    )
