"""What an evaluation found, for a screen, a table and a program."""

import csv
import io
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from ensemble.data.registry import Problem
from ensemble.metrics.calibration import Calibration, measure_calibration
from ensemble.metrics.groups import FEW_IMAGES, GroupReport
from ensemble.metrics.intervals import (
    LEVEL,
    METHOD,
    NO_GAIN,
    ScoreIntervals,
    compare,
    score_intervals,
)
from ensemble.metrics.metrics import Metrics, measure, worst_mistakes
from ensemble.metrics.trained_on import TrainedOn
from ensemble.metrics.wording import percents, plural, shares

_GROUPS = 20  # named in a warning; all of them are in the JSON


@dataclass(frozen=True, slots=True)
class TrainingSummary:
    """How the model that is judged was trained.

    Args:
        epochs: Number of epochs trained.
        best_epoch: The epoch whose weights were kept, counted from 1.
        monitor: What chose it, such as "val_accuracy".
        values: Entries of the history at that epoch, such as "accuracy", "val_loss".
    """

    epochs: int
    best_epoch: int
    monitor: str
    values: Mapping[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values, ready for JSON; a value that is not a number is None."""
        values = {
            name: float(value) if math.isfinite(value) else None
            for name, value in self.values.items()
        }
        return {
            "epochs": self.epochs,
            "best_epoch": self.best_epoch,
            "monitor": self.monitor,
            "values": values,
        }


@dataclass(frozen=True, eq=False)
class Report:
    """A model's answers on labelled images, and how good they are.

    Args:
        subject: What was judged on what, such as "three_class on validation".
        metrics: The numbers; `measure` of the labels and probabilities below.
        classes: Names of the `c` classes.
        names: Names of the `n` images.
        labels: True classes as indices into `classes`, shape `(n,)`.
        probabilities: Shape `(n, c)`.
        temperature: Of the model, which is in the probabilities.
        same_images: Whether it was fitted on these images.
        training: How the model was trained, or None where that is not known.
        facts: Lines about the data and the model: heading to text.
        problems: Images that were left out, and why.
        groups: Figures of groups of the images, where they are asked for.
        trained_on: Which of the images the model was trained on.

    Raises:
        ValueError: If the number of names, labels or probabilities is not that of
            the metrics, or classes do not fit.
    """

    subject: str
    metrics: Metrics
    classes: Sequence[str]
    names: Sequence[str]
    labels: np.ndarray
    probabilities: np.ndarray
    temperature: float = 1.0
    same_images: bool = False
    training: TrainingSummary | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    problems: Sequence[Problem] = ()
    groups: GroupReport | None = None
    trained_on: TrainedOn = field(default_factory=lambda: TrainedOn([]))

    def __post_init__(self) -> None:
        images, num_classes = self.metrics.images, len(self.metrics.per_class)
        shapes = (len(self.names), self.labels.shape, self.probabilities.shape, len(self.classes))
        if shapes != (images, (images,), (images, num_classes), num_classes):
            raise ValueError(
                f"The metrics are of {images} images and {num_classes} classes, but names, labels, "
                f"probabilities and classes are of {shapes}."
            )

    @cached_property
    def intervals(self) -> ScoreIntervals:
        """95 % intervals of the figures."""
        return score_intervals(self.metrics.confusion)

    @cached_property
    def calibration(self) -> Calibration:
        """How far probabilities can be taken at their word, before the temperature and after."""
        return measure_calibration(
            self.labels, self.probabilities, self.temperature, same_images=self.same_images
        )

    @cached_property
    def unseen_metrics(self) -> Metrics | None:
        """Metrics without the images that the model was trained on; None if none remain."""
        seen = self.trained_on.names
        kept = np.array([name not in seen for name in self.names])
        if not kept.any():
            return None
        return measure(self.labels[kept], self.probabilities[kept], self.classes)

    @cached_property
    def unseen_intervals(self) -> ScoreIntervals | None:
        """95 % intervals of `unseen_metrics`."""
        return score_intervals(self.unseen_metrics.confusion) if self.unseen_metrics else None

    @property
    def warnings(self) -> list[str]:
        """What a reader must know before trusting the figures: one sentence each."""
        few = [
            f"{scores.name} ({scores.support:,})"
            for scores in self.metrics.per_class
            if scores.support < FEW_IMAGES
        ]
        lines = list(_trained_on_warnings(self))
        if few:
            lines.append(
                f"Fewer than {FEW_IMAGES} images were judged of {', '.join(few)}; figures of "
                "so few say little."
            )
        small = self.groups.small if self.groups else []
        if self.groups and small:
            named = [f"{group.name} ({group.images:,})" for group in small[:_GROUPS]]
            named += [f"{len(small) - _GROUPS:,} more"] if len(small) > _GROUPS else []
            lines.append(
                f"Fewer than {FEW_IMAGES} images were judged of the groups {', '.join(named)} "
                f"by {self.groups.column}; figures of so few say little."
            )
        baseline = self.metrics.baseline
        if baseline:
            majority = np.full_like(self.labels, list(self.classes).index(baseline.name))
            gain = compare(self.labels, majority, self.predicted).accuracy
            if gain.value <= 0:
                lines.append(f"The model does no better than always answering {baseline.name}.")
            elif gain.verdict == NO_GAIN:
                lines.append(
                    f"There is {NO_GAIN} in accuracy over always answering {baseline.name}: the "
                    "95 % interval of the difference holds 0."
                )
        return lines

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
        return worst_mistakes(self.labels, self.probabilities, count)

    def summary(self) -> str:
        """Returns the few lines that a reader wants first."""
        return "\n".join(_summary_lines(self))

    def as_json(self) -> str:
        """Returns everything but the answers to single images, as JSON."""
        content = {
            "subject": self.subject,
            "classes": list(self.classes),
            "metrics": self.metrics.to_dict(),
            "intervals": {"level": LEVEL, "method": METHOD, **asdict(self.intervals)},
            "calibration": self.calibration.to_dict(),
            "groups": asdict(self.groups) if self.groups else None,
            "trained_on": _trained_on_dict(self),
            "warnings": self.warnings,
            "training": self.training.to_dict() if self.training else None,
            "facts": dict(self.facts),
            "problems": [asdict(problem) for problem in self.problems],
        }
        return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    def confusion_csv(self) -> str:
        """Returns the confusion counts as CSV; row: true class, column: predicted class."""
        rows = zip(self.classes, self.metrics.confusion, strict=True)
        return _csv(["true", *self.classes], ([name, *counts] for name, counts in rows))

    def predictions_csv(self) -> str:
        """Returns one CSV row for each image.

        Columns are name, label, predicted, confidence and the probability of each
        class, written so that reading them back gives the same numbers.
        """
        rows = zip(
            self.names,
            [self.classes[label] for label in self.labels],
            [self.classes[label] for label in self.predicted],
            self.confidences,
            self.probabilities,
            strict=True,
        )
        return _csv(
            ["name", "label", "predicted", "confidence", *self.classes],
            ([*answer, *probabilities] for *answer, probabilities in rows),
        )


def _summary_lines(report: Report) -> list[str]:
    metrics, intervals = report.metrics, report.intervals
    baseline = metrics.baseline
    accuracy = f"  accuracy       {metrics.accuracy:7.2%}  {percents(intervals.accuracy)}"
    macro_f1 = f"  macro-F1       {metrics.macro.f1:7.3f}  {shares(intervals.macro_f1)}"
    if baseline:
        accuracy += f"  (always {baseline.name}: {baseline.accuracy:.2%})"
        macro_f1 += f"  (always {baseline.name}: {baseline.macro_f1:.3f})"
    weakest = _weakest(metrics)
    scores = metrics.per_class[weakest]
    return [
        f"{report.subject}: {plural(metrics.images, 'image')}; 95 % intervals in brackets",
        accuracy,
        macro_f1,
        f"  weakest class  {scores.name}: F1 {scores.f1:.3f} "
        f"{shares(intervals.class_f1[weakest])}, "
        f"recall {scores.recall:.1%} {percents(intervals.class_recall[weakest])} of "
        f"{plural(scores.support, 'image')}",
        *(f"  {warning}" for warning in report.warnings),
    ]


def _trained_on_warnings(report: Report) -> Iterator[str]:
    found, rest, intervals = report.trained_on, report.unseen_metrics, report.unseen_intervals
    if found.repeats:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in found.kinds.items())
        others = (
            f"on the other {plural(rest.images, 'image')}, accuracy is {rest.accuracy:.2%} "
            f"{percents(intervals.accuracy)} and macro-F1 {rest.macro.f1:.3f} "
            f"{shares(intervals.macro_f1)}"
            if rest and intervals
            else "no other images remain"
        )
        yield (
            f"{len(found.names):,} of these {plural(report.metrics.images, 'image')} were trained "
            f"on ({kinds}), such as {found.repeats[0].other_name}, so the metrics are too high; "
            f"{others}."
        )
    if found.unreadable:
        yield (
            f"{plural(found.unreadable, 'training image')} could not be read, so only exact copies "
            "of them were searched for."
        )


def _trained_on_dict(report: Report) -> dict[str, Any] | None:
    found, rest, intervals = report.trained_on, report.unseen_metrics, report.unseen_intervals
    if not found.repeats and not found.unreadable:
        return None
    return {
        **found.to_dict(),
        "metrics_without": rest.to_dict() if rest else None,
        "intervals_without": asdict(intervals) if intervals else None,
    }


def _weakest(metrics: Metrics) -> int:
    """Returns the place of the class of lowest F1 among those that have images."""
    present = [place for place, scores in enumerate(metrics.per_class) if scores.support]
    return min(present, key=lambda place: metrics.per_class[place].f1)


def _csv(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()
