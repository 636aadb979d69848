"""Numbers that judge a classifier on labelled images.

All of them are exact counts and ratios over every image given. A ratio with
nothing below the line is 0: a class that is never answered has precision 0, a
class without images has recall 0 and F1 0.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from sklearn import metrics as sklearn

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

    probabilities = probabilities / probabilities.sum(axis=1, keepdims=True)
    answers = probabilities.argmax(axis=1)
    indices = range(len(classes))
    rates = sklearn.precision_recall_fscore_support(
        labels, answers, labels=indices, zero_division=0
    )
    confusion = sklearn.confusion_matrix(labels, answers, labels=indices)
    return Metrics(
        images=len(labels),
        accuracy=float(sklearn.accuracy_score(labels, answers)),
        balanced_accuracy=_balanced_accuracy(labels, answers),
        log_loss=float(sklearn.log_loss(labels, probabilities, labels=indices)),
        top2_accuracy=_top2_accuracy(labels, probabilities) if len(classes) > 2 else None,
        macro=_average(labels, answers, len(classes), "macro"),
        weighted=_average(labels, answers, len(classes), "weighted"),
        per_class=tuple(
            ClassScores(*scores)
            for scores in zip(classes, *(column.tolist() for column in rates), strict=True)
        ),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        baseline=None if training_counts is None else _baseline(labels, classes, training_counts),
    )


def worst_mistakes(labels: np.ndarray, probabilities: np.ndarray, count: int) -> list[int]:
    """Returns indices of up to `count` mistakes, the most confident first.

    Args:
        labels: True classes, shape `(n,)`.
        probabilities: Shape `(n, c)`.
        count: How many at most.
    """
    mistakes = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    order = np.argsort(-probabilities.max(axis=1)[mistakes], kind="stable")
    return mistakes[order][:count].tolist()


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


def _average(labels: np.ndarray, answers: np.ndarray, num_classes: int, how: str) -> Scores:
    *means, _ = sklearn.precision_recall_fscore_support(
        labels, answers, labels=range(num_classes), average=how, zero_division=0
    )
    return Scores(*map(float, means))


def _balanced_accuracy(labels: np.ndarray, answers: np.ndarray) -> float:
    # scikit-learn's own warns where an answer is a class without images.
    return float(np.mean([(answers[labels == label] == label).mean() for label in set(labels)]))


def _top2_accuracy(labels: np.ndarray, probabilities: np.ndarray) -> float:
    indices = range(probabilities.shape[1])
    return float(sklearn.top_k_accuracy_score(labels, probabilities, k=2, labels=indices))


def _baseline(
    labels: np.ndarray, classes: Sequence[str], training_counts: Sequence[int]
) -> Baseline:
    if len(training_counts) != len(classes):
        raise ValueError(
            f"Expected training counts of {len(classes)} classes. Received: {len(training_counts)}."
        )
    majority = int(np.argmax(training_counts))
    answers = np.full_like(labels, majority)
    return Baseline(
        name=classes[majority],
        accuracy=float(sklearn.accuracy_score(labels, answers)),
        balanced_accuracy=_balanced_accuracy(labels, answers),
        macro_f1=_average(labels, answers, len(classes), "macro").f1,
    )
