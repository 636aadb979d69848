"""Metrics of a classifier on labelled images.

All metrics are listed in `METRICS`. One that is registered there appears in every report, in the
columns of `compare` and among the objectives of `search`. A ratio with a denominator of 0 is 0: a
class that is never predicted has precision 0, a class without images has recall 0 and F1 0.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal

import numpy as np

from configs.errors import ConfigError, UserError
from ensemble.metrics.intervals import (
    LEVEL,
    METHOD,
    Interval,
    bootstrap_interval,
    f1_intervals,
    mean_interval,
    recall_intervals,
    wilson_interval,
)

_MIN_PROBABILITY = float(np.finfo("float64").eps)  # as in scikit-learn's log_loss


@dataclass(frozen=True, slots=True)
class Score:
    """Value of a metric, its 95 % interval and the value of the majority-class baseline."""

    value: float
    interval: Interval | None = None
    baseline: float | None = None


@dataclass(frozen=True)
class Metric:
    """Declaration of a metric.

    Args:
        name: Key in `report.json`, column of `comparison.csv`, and objective "val_NAME".
        title: Heading in reports.
        function: Takes labels `(n,)` and probabilities `(n, c)`; None where it is not defined.
        interval: Takes the arguments of the function; None: the metric has no interval.
        direction: Whether a larger or a smaller value is better.
        format: Format of a value.
        headline: Whether the console and printed comparisons show it too.
    """

    name: str
    title: str
    function: Callable[..., Any]
    interval: Callable[..., Interval] | None = None
    direction: Literal["max", "min"] = "max"
    format: str = ".3f"
    headline: bool = False

    def show(self, score: Score | None) -> list[str]:
        """Returns value, interval and baseline as texts, "" for what there is not."""
        if score is None:
            return ["", "", ""]
        of_interval = ".1%" if self.format.endswith("%") else self.format
        return [
            f"{score.value:{self.format}}",
            f"{score.interval:{of_interval}}" if score.interval else "",
            "" if score.baseline is None else f"{score.baseline:{self.format}}",
        ]

    def measure(
        self, labels: np.ndarray, probabilities: np.ndarray, majority: int | None
    ) -> Score | None:
        """Returns the score; None where it is not defined.

        Args:
            labels: True classes as indices, shape `(n,)`.
            probabilities: Shape `(n, c)`.
            majority: Index of the majority class of the training images, if it is known.
        """
        value = self.function(labels, probabilities)
        if value is None:
            return None
        return Score(value, self.interval(labels, probabilities) if self.interval else None)


@dataclass(frozen=True)
class ConfusionMetric(Metric):
    """A metric of the predicted classes.

    It has a majority-class baseline, and without an `interval` that of the bootstrap.

    Its `function` takes confusion matrices `(..., c, c)` of true (rows) and predicted classes and
    returns values `(...)`; its `interval` takes one matrix.
    """

    def measure(
        self, labels: np.ndarray, probabilities: np.ndarray, majority: int | None
    ) -> Score | None:
        confusion = confusion_matrix(labels, probabilities)
        interval = self.interval or partial(bootstrap_interval, self.function)
        baseline = None
        if majority is not None:
            constant = np.zeros_like(confusion)
            constant[:, majority] = confusion.sum(axis=1)
            baseline = float(self.function(constant))
        return Score(float(self.function(confusion)), interval(confusion), baseline)


METRICS: dict[str, Metric] = {}


def register_metric(metric: Metric) -> Metric:
    """Adds a metric to all reports and comparisons, and returns it.

    Raises:
        ConfigError: If another metric has its name.
    """
    if metric.name in METRICS:
        raise ConfigError(f"The metric {metric.name!r} is registered already.")
    METRICS[metric.name] = metric
    return metric


def headline_metrics() -> list[Metric]:
    """Returns the metrics that the console shows."""
    return [metric for metric in METRICS.values() if metric.headline]


def objectives() -> dict[str, Literal["max", "min"]]:
    """Returns what a search can optimize on validation images, each with its direction."""
    metrics = {f"val_{name}": metric.direction for name, metric in METRICS.items()}
    return {**metrics, "val_loss": "min"}


def confusion_matrix(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Returns counts of shape `(c, c)`; row: true class, column: most probable class."""
    confusion = np.zeros(2 * probabilities.shape[1:], np.int64)
    np.add.at(confusion, (labels, probabilities.argmax(axis=1)), 1)
    return confusion


def accuracy(confusion: np.ndarray) -> np.ndarray:
    """Returns the proportion of images that are predicted correctly."""
    return np.trace(confusion, axis1=-2, axis2=-1) / confusion.sum(axis=(-2, -1))


def recalls(confusion: np.ndarray) -> np.ndarray:
    """Returns the recall of each class, shape `(..., c)`."""
    return _divide(_hits(confusion), confusion.sum(axis=-1))


def precisions(confusion: np.ndarray) -> np.ndarray:
    """Returns the precision of each class, shape `(..., c)`."""
    return _divide(_hits(confusion), confusion.sum(axis=-2))


def f1_scores(confusion: np.ndarray) -> np.ndarray:
    """Returns the F1 of each class, shape `(..., c)`."""
    return _divide(2 * _hits(confusion), confusion.sum(axis=-1) + confusion.sum(axis=-2))


def balanced_accuracy(confusion: np.ndarray) -> np.ndarray:
    """Returns the mean recall over the classes that have images."""
    return recalls(confusion).sum(axis=-1) / (confusion.sum(axis=-1) > 0).sum(axis=-1)


def balanced_accuracy_interval(confusion: np.ndarray) -> Interval:
    """Combines the intervals of the recalls of the classes that have images."""
    present = np.flatnonzero(confusion.sum(axis=1))
    intervals = recall_intervals(confusion)
    return mean_interval(recalls(confusion)[present], [intervals[index] for index in present])


def macro_f1(confusion: np.ndarray) -> np.ndarray:
    """Returns the unweighted mean F1 over all classes, those without images included."""
    return f1_scores(confusion).mean(axis=-1)


def macro_f1_interval(confusion: np.ndarray) -> Interval:
    """Resamples the images, or combines the intervals of the classes where that has no width."""
    interval = bootstrap_interval(macro_f1, confusion)
    if interval.low < interval.high:
        return interval
    return mean_interval(f1_scores(confusion), f1_intervals(confusion))


def top2_accuracy(labels: np.ndarray, probabilities: np.ndarray) -> float | None:
    """Returns the proportion of images whose class is among the two most probable.

    None for fewer than three classes, where it is 1 by definition.
    """
    if probabilities.shape[1] < 3:
        return None
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :2]
    return float((best == labels[:, None]).any(axis=1).mean())


def log_loss(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Returns the mean negative natural logarithm of the probability of the true class, in nats.

    A probability below 2.2e-16 counts as that.
    """
    true = probabilities[np.arange(len(labels)), labels]
    return float((-np.log(np.maximum(true, _MIN_PROBABILITY))).mean()) + 0.0  # and not -0


for _metric in (
    ConfusionMetric(
        "accuracy", "Accuracy", accuracy,
        lambda confusion: wilson_interval(confusion.trace(), confusion.sum()),
        format=".2%", headline=True,
    ),
    ConfusionMetric(
        "balanced_accuracy", "Balanced accuracy", balanced_accuracy, balanced_accuracy_interval,
        format=".2%",
    ),
    ConfusionMetric("macro_f1", "Macro-F1", macro_f1, macro_f1_interval, headline=True),
    Metric("top2_accuracy", "Top-2 accuracy", top2_accuracy, format=".2%"),
    Metric("log_loss", "Log loss (nats)", log_loss, direction="min"),
):  # fmt: skip
    register_metric(_metric)


@dataclass(frozen=True, slots=True)
class Scores:
    """Precision, recall and F1, averaged over classes, each in 0..1."""

    precision: float
    recall: float
    f1: float


@dataclass(frozen=True, slots=True)
class ClassScores(Scores):
    """Precision, recall and F1 of one class, with 95 % intervals, and its number of images."""

    name: str
    support: int
    f1_interval: Interval
    recall_interval: Interval


@dataclass(frozen=True, slots=True)
class Metrics:
    """Metrics of a classifier on a set of images.

    Args:
        images: Number of images.
        scores: Name in `METRICS` to score, without the metrics that are not defined here.
        macro: Unweighted means over all classes, those without images included.
        weighted: Means weighted by the number of images of each class.
        per_class: Scores in the order of the classes.
        confusion: Counts; row: true class, column: predicted class.
        majority: Class of the majority-class baseline, if it is known.
    """

    images: int
    scores: Mapping[str, Score]
    macro: Scores
    weighted: Scores
    per_class: tuple[ClassScores, ...]
    confusion: tuple[tuple[int, ...], ...]
    majority: str | None = None

    @property
    def accuracy(self) -> float:
        """Proportion of images that are predicted correctly."""
        return self.scores["accuracy"].value

    def to_dict(self) -> dict[str, Any]:
        """Returns all values but the intervals, ready for JSON; no number is NaN."""
        baselines = {name: s.baseline for name, s in self.scores.items() if s.baseline is not None}
        keys = ("name", "precision", "recall", "f1", "support")
        return {
            "images": self.images,
            **dict.fromkeys(METRICS),
            **{name: score.value for name, score in self.scores.items()},
            "macro": asdict(self.macro),
            "weighted": asdict(self.weighted),
            "per_class": [{key: getattr(s, key) for key in keys} for s in self.per_class],
            "confusion": [list(row) for row in self.confusion],
            "baseline": {"name": self.majority, **baselines} if self.majority is not None else None,
        }

    def intervals_to_dict(self) -> dict[str, Any]:
        """Returns the 95 % intervals, ready for JSON."""
        intervals = {name: asdict(s.interval) for name, s in self.scores.items() if s.interval}
        return {
            "level": LEVEL,
            "method": METHOD,
            **intervals,
            "class_f1": [asdict(scores.f1_interval) for scores in self.per_class],
            "class_recall": [asdict(scores.recall_interval) for scores in self.per_class],
        }


def measure(
    labels: np.ndarray,
    probabilities: np.ndarray,
    classes: Sequence[str],
    majority: str | None = None,
) -> Metrics:
    """Measures probabilities against labels.

    An image is predicted to be of its most probable class, the first of them where several are
    equally probable.

    Args:
        labels: True classes as indices into `classes`, shape `(n,)`, integer.
        probabilities: Shape `(n, c)`; rows are in 0..1 and sum to 1.
        classes: Names of the `c` classes.
        majority: The majority class of the training images; None: no baseline.

    Raises:
        ValueError: If there are no rows, shapes do not fit, a label is not the index of a class or
            rows are not probabilities.
        UserError: If a probability is not a number: the training has diverged.
    """
    labels, probabilities = np.asarray(labels), np.asarray(probabilities, dtype=np.float64)
    _check(labels, probabilities, len(classes))
    labels = labels.astype(np.intp)
    probabilities = probabilities / probabilities.sum(axis=1, keepdims=True)
    confusion = confusion_matrix(labels, probabilities)
    index = None if majority is None else list(classes).index(majority)
    found = {name: metric.measure(labels, probabilities, index) for name, metric in METRICS.items()}
    support = confusion.sum(axis=1)
    rates = np.stack([precisions(confusion), recalls(confusion), f1_scores(confusion)])
    per_class = zip(
        rates.T.tolist(),
        classes,
        support.tolist(),
        f1_intervals(confusion),
        recall_intervals(confusion),
        strict=True,
    )
    return Metrics(
        images=len(labels),
        scores={name: score for name, score in found.items() if score is not None},
        macro=Scores(*rates.mean(axis=1).tolist()),
        weighted=Scores(*np.average(rates, axis=1, weights=support).tolist()),
        per_class=tuple(ClassScores(*own, *rest) for own, *rest in per_class),
        confusion=tuple(map(tuple, confusion.tolist())),
        majority=majority,
    )


def majority_class(classes: Sequence[str], training_counts: Sequence[int]) -> str:
    """Returns the most frequent class of the training images, the first of several."""
    if len(training_counts) != len(classes):
        raise ValueError(
            f"Expected training counts of {len(classes)} classes. Received: {len(training_counts)}."
        )
    return classes[int(np.argmax(training_counts))]


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
            f"The model's prediction is not a number for {broken:,} of {len(labels):,} images: its "
            "training has diverged. Train again with a lower --learning-rate."
        )
    # wide enough for a softmax in float16, narrow enough to reject logits
    if probabilities.min() < 0 or not np.allclose(probabilities.sum(axis=1), 1, atol=1e-2):
        raise ValueError("Rows of probabilities must be in 0..1 and sum to 1.")


def _hits(confusion: np.ndarray) -> np.ndarray:
    return np.diagonal(confusion, axis1=-2, axis2=-1)


def _divide(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.zeros(np.shape(above)), where=below > 0)
