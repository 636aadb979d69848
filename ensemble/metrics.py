"""Numbers that judge a classifier on labelled images.

All of them are exact counts and ratios over every image given. A ratio with
nothing below the line is 0: a class that is never answered has precision 0, a
class without images has recall 0 and F1 0.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from configs.errors import UserError


@dataclass(frozen=True, slots=True)
class Scores:
    """Precision, recall and F1 averaged over classes, each in 0..1."""

    precision: float
    recall: float
    f1: float


@dataclass(frozen=True, slots=True)
class ClassScores:
    """Precision, recall and F1 of one class, each in 0..1, and its number of images."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True, slots=True)
class Baseline:
    """What always answering the most frequent class of the training images scores.

    Args:
        name: That class; the first of them where several are equally frequent.
        accuracy: In 0..1, as the next two, on the images that the model is judged on.
        balanced_accuracy: See `Metrics`.
        macro_f1: See `Metrics`.
    """

    name: str
    accuracy: float
    balanced_accuracy: float
    macro_f1: float


@dataclass(frozen=True, slots=True)
class Metrics:
    """How well a classifier does on a set of images.

    Args:
        images: Number of images; each counts once.
        accuracy: Share of images answered correctly.
        balanced_accuracy: Mean recall over the classes that have images.
        log_loss: Mean negative natural logarithm of the probability given to the
            true class, in nats; a probability below 2.2e-16 counts as that.
        top2_accuracy: Share of images whose class is among the two most probable;
            None for fewer than three classes, where it would say nothing.
        macro: Unweighted means over all classes, those without images included.
        weighted: Means weighted by the number of images of each class.
        per_class: Scores in the order of the classes.
        confusion: Counts; row: true class, column: predicted class.
        baseline: Scores of the majority class; None where it is not known.
    """

    images: int
    accuracy: float
    balanced_accuracy: float
    log_loss: float
    top2_accuracy: float | None
    macro: Scores
    weighted: Scores
    per_class: tuple[ClassScores, ...]
    confusion: tuple[tuple[int, ...], ...]
    baseline: Baseline | None

    def to_dict(self) -> dict[str, Any]:
        """Returns dictionaries, lists and plain numbers, ready for JSON; no number is NaN."""
        return {
            **asdict(self),
            "per_class": [asdict(scores) for scores in self.per_class],
            "confusion": [list(row) for row in self.confusion],
        }


def measure(
    labels: np.ndarray,
    probabilities: np.ndarray,
    classes: Sequence[str],
    training_counts: Sequence[int] | None = None,
) -> Metrics:
    """Measures probabilities against labels.

    An image is predicted to be of its most probable class, the first of them
    where several are equally probable.

    Args:
        labels: True classes as indices into `classes`, shape `(n,)`, integer.
        probabilities: Shape `(n, c)`; rows are in 0..1 and sum to 1.
        classes: Names of the `c` classes.
        training_counts: Number of training images of each class, which decides
            the majority baseline; None: no baseline.

    Raises:
        ValueError: If there are no rows, shapes do not fit, a label is no index
            of a class or rows are not probabilities.
        UserError: If a probability is not a number: the training has diverged.
    """
    labels = np.asarray(labels)
    probabilities = np.asarray(probabilities, dtype=np.float64)
    _check(labels, probabilities, len(classes))

    confusion = _count(labels, probabilities.argmax(axis=1), len(classes))
    support = confusion.sum(axis=1)
    rates = _rates(confusion)
    return Metrics(
        images=len(labels),
        accuracy=_accuracy(confusion),
        balanced_accuracy=_balanced_accuracy(confusion),
        log_loss=_log_loss(labels, probabilities),
        top2_accuracy=_top2_accuracy(labels, probabilities) if len(classes) > 2 else None,
        macro=Scores(*rates.mean(axis=1).tolist()),
        weighted=Scores(*np.average(rates, axis=1, weights=support).tolist()),
        per_class=tuple(
            ClassScores(*scores)
            for scores in zip(classes, *rates.tolist(), support.tolist(), strict=True)
        ),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        baseline=None if training_counts is None else _baseline(support, classes, training_counts),
    )


def _check(labels: np.ndarray, probabilities: np.ndarray, num_classes: int) -> None:
    if labels.ndim != 1 or probabilities.shape != (len(labels), num_classes):
        raise ValueError(
            f"Expected labels of shape (n,) and probabilities of shape (n, {num_classes}). "
            f"Received: {labels.shape} and {probabilities.shape}."
        )
    if not len(labels):
        raise ValueError("There are no images to measure on.")
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"Labels must be integers. Received: {labels.dtype}.")
    if labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(
            f"Labels must be in 0..{num_classes - 1}. Received: {labels.min()} to {labels.max()}."
        )
    broken = int((~np.isfinite(probabilities)).any(axis=1).sum())
    if broken:
        raise UserError(
            f"The model's answer is not a number for {broken:,} of {len(labels):,} images: its "
            "training has diverged. Train again with a lower --learning-rate."
        )
    # Wide enough for a softmax in float16, narrow enough to tell logits apart.
    if probabilities.min() < 0 or not np.allclose(probabilities.sum(axis=1), 1, atol=1e-2):
        raise ValueError("Rows of probabilities must be in 0..1 and sum to 1.")


def _count(labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    # Labels may be stored in a byte, which the product would overflow.
    cells = labels.astype(np.int64) * num_classes + predicted
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def _rates(confusion: np.ndarray) -> np.ndarray:
    """Returns precision, recall and F1 of each class, shape `(3, c)`."""
    hits, truths, answers = confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)
    return np.stack(
        [_ratio(hits, answers), _ratio(hits, truths), _ratio(2 * hits, truths + answers)]
    )


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)


def _accuracy(confusion: np.ndarray) -> float:
    return float(confusion.trace() / confusion.sum())


def _balanced_accuracy(confusion: np.ndarray) -> float:
    _, recall, _ = _rates(confusion)
    return float(recall[confusion.sum(axis=1) > 0].mean())


def _log_loss(labels: np.ndarray, probabilities: np.ndarray) -> float:
    of_truth = probabilities[np.arange(len(labels)), labels]
    return float(np.abs(np.log(np.clip(of_truth, np.finfo(np.float64).eps, 1))).mean())


def _top2_accuracy(labels: np.ndarray, probabilities: np.ndarray) -> float:
    # A stable sort ranks equal probabilities as argmax does: the first class leads.
    leading = np.argsort(-probabilities, axis=1, kind="stable")[:, :2]
    return float((leading == labels[:, None]).any(axis=1).mean())


def _baseline(
    support: np.ndarray, classes: Sequence[str], training_counts: Sequence[int]
) -> Baseline:
    if len(training_counts) != len(classes):
        raise ValueError(
            f"Expected training counts of {len(classes)} classes. Received: {len(training_counts)}."
        )
    majority = int(np.argmax(training_counts))
    confusion = np.zeros((len(classes), len(classes)), dtype=np.int64)
    confusion[:, majority] = support
    return Baseline(
        name=classes[majority],
        accuracy=_accuracy(confusion),
        balanced_accuracy=_balanced_accuracy(confusion),
        macro_f1=float(_rates(confusion)[2].mean()),
    )
