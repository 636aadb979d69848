"""The answers of a run or a trial to its validation images, as they were written down."""

import csv
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from configs.errors import RunError
from ensemble.runs.run import Run

_FIRST_CLASS = 4  # after name, label, predicted and confidence


@dataclass(frozen=True, eq=False)
class Answers:
    """What a model answered to labelled images.

    Args:
        classes: Names of the `c` classes.
        names: Names of the `n` images.
        labels: True classes as indices into `classes`, shape `(n,)`.
        probabilities: Shape `(n, c)`, float64.
        digests: Image to the digest of its content, where one was recorded.
    """

    classes: tuple[str, ...]
    names: tuple[str, ...]
    labels: np.ndarray
    probabilities: np.ndarray
    digests: Mapping[str, str] = field(default_factory=dict)

    @property
    def predicted(self) -> np.ndarray:
        """Most probable classes as indices into `classes`, shape `(n,)`."""
        return self.probabilities.argmax(axis=1)

    def arranged_as(self, other: "Answers") -> "Answers | None":
        """Returns these answers with images and classes in another's order.

        Returns:
            None if the images, their content, their labels or the classes are not the same.
        """
        if any(self.digests.get(name, digest) != digest for name, digest in other.digests.items()):
            return None
        if sorted(self.classes) != sorted(other.classes):
            return None
        rows = {name: row for row, name in enumerate(self.names)}
        if len(rows) != len(other.names) or rows.keys() != set(other.names):
            return None
        order = np.array([rows[name] for name in other.names])
        columns = np.array([self.classes.index(name) for name in other.classes])
        labels = np.argsort(columns)[self.labels[order]]
        if not np.array_equal(labels, other.labels):
            return None
        probabilities = self.probabilities[order][:, columns]
        return Answers(other.classes, other.names, labels, probabilities, other.digests)


def read_answers(folder: Path) -> Answers:
    """Reads `predictions.csv` of a run or a trial.

    Raises:
        RunError: If it is missing or damaged.
    """
    path = folder / "predictions.csv"
    try:
        with path.open(encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file)
        classes = tuple(header[_FIRST_CLASS:])
        labels = np.array([classes.index(row[1]) for row in rows])
        probabilities = np.array([row[_FIRST_CLASS:] for row in rows], dtype=np.float64)
        if probabilities.shape != (len(rows), len(classes)) or not rows:
            raise ValueError(f"{len(rows)} rows of {len(classes)} classes")
    except (OSError, ValueError, IndexError) as error:
        raise RunError(
            f"{path} cannot be read ({error}). Name a finished run or a search."
        ) from error
    names = tuple(row[0] for row in rows)
    return Answers(classes, names, labels, probabilities, _read_digests(folder, set(names)))


def _read_digests(folder: Path, names: Collection[str]) -> dict[str, str]:
    """Returns the digests of images that the `split.csv` of a run records, if it does."""
    run = Run(folder)
    if not (folder / "split.csv").is_file() or run.config.data.faces.detector != "none":
        return {}  # or digests of face crops, which depend on the settings
    rows = run.read_table("split.csv")
    digests = {row.get("path", ""): row.get("sha256", "") for row in rows}
    return {name: digest for name, digest in digests.items() if digest and name in names}


def arrange_alike(several: Sequence[Answers]) -> list[Answers] | None:
    """Returns all answers in the order of the first, None if they are to different images."""
    arranged = [answers.arranged_as(several[0]) for answers in several]
    return None if None in arranged else [answers for answers in arranged if answers is not None]
