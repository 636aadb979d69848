"""Predictions: the probabilities that a model gives to labelled images."""

import csv
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from configs.errors import RunError
from ensemble.runs.run import Run

_FIRST_CLASS = 4  # after name, label, predicted and confidence


@dataclass(frozen=True, eq=False)
class Predictions:
    """Probabilities `(n, c)` of labelled images.

    Args:
        classes: Names of the `c` classes.
        names: Names of the `n` images.
        labels: True classes as indices into `classes`, shape `(n,)`.
        probabilities: Shape `(n, c)`.
        digests: Image to the digest of its content, where one was recorded.

    Raises:
        ValueError: If the shapes do not fit.
    """

    classes: Sequence[str]
    names: Sequence[str]
    labels: np.ndarray
    probabilities: np.ndarray
    digests: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        images = len(self.names)
        shapes = self.labels.shape, self.probabilities.shape
        if shapes != ((images,), (images, len(self.classes))):
            raise ValueError(
                f"Expected labels and probabilities of {images} images and {len(self.classes)} "
                f"classes. Received shapes: {shapes[0]} and {shapes[1]}."
            )

    def __len__(self) -> int:
        return len(self.names)

    @property
    def predicted(self) -> np.ndarray:
        """Most probable classes as indices into `classes`, shape `(n,)`."""
        return self.probabilities.argmax(axis=1)

    @property
    def confidences(self) -> np.ndarray:
        """Probabilities of the predicted classes, shape `(n,)`."""
        return self.probabilities.max(axis=1)

    def worst(self, count: int) -> list[int]:
        """Returns indices of up to `count` mistakes, the most confident first."""
        mistakes = np.flatnonzero(self.predicted != self.labels)
        order = np.argsort(-self.confidences[mistakes], kind="stable")
        return mistakes[order][:count].tolist()

    def arranged_as(self, other: "Predictions") -> "Predictions | None":
        """Returns these predictions with images and classes in another's order.

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
        columns = np.array([list(self.classes).index(name) for name in other.classes])
        labels = np.argsort(columns)[self.labels[order]]
        if not np.array_equal(labels, other.labels):
            return None
        return replace(other, labels=labels, probabilities=self.probabilities[order][:, columns])

    def header(self) -> list[str]:
        """Returns the columns of `predictions.csv`."""
        return ["name", "label", "predicted", "confidence", *self.classes]

    def rows(self) -> Iterator[list[object]]:
        """Yields a row of `predictions.csv` for each image, with exact numbers."""
        for name, label, predicted, row in zip(
            self.names, self.labels, self.predicted, self.probabilities, strict=True
        ):
            yield [name, self.classes[label], self.classes[predicted], row[predicted], *row]


def read_predictions(folder: Path) -> Predictions:
    """Reads `predictions.csv` of a run, a trial or an evaluation.

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
        names = tuple(row[0] for row in rows)
        if not names:
            raise ValueError("there are no images")
        predictions = Predictions(classes, names, labels, probabilities)
    except (OSError, ValueError, IndexError) as error:
        raise RunError(
            f"{path} cannot be read ({error}). Name a finished run or a search."
        ) from error
    return replace(predictions, digests=_read_digests(folder, set(names)))


def arrange_alike(several: Sequence[Predictions]) -> list[Predictions] | None:
    """Returns all predictions in the order of the first; None if the images are not the same."""
    arranged = [predictions.arranged_as(several[0]) for predictions in several]
    return None if None in arranged else [found for found in arranged if found is not None]


def _read_digests(folder: Path, names: Collection[str]) -> dict[str, str]:
    """Returns the digests of images that the `split.csv` of a run records, if it does."""
    run = Run(folder)
    if not (folder / "split.csv").is_file() or run.config.data.faces.detector != "none":
        return {}  # or digests of face crops, which depend on the settings
    digests = {row.get("path", ""): row.get("sha256", "") for row in run.read_table("split.csv")}
    return {name: digest for name, digest in digests.items() if digest and name in names}
