"""What an evaluation found, as text: for a screen, a reader, a table and a program."""

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from ensemble.datasets.registry import Problem
from ensemble.evaluation.calibration import FITTED_ON, Calibration, measure_calibration
from ensemble.evaluation.groups import FEW_IMAGES, GroupReport, describe_gaps
from ensemble.evaluation.intervals import (
    LEVEL,
    NO_GAIN,
    Interval,
    ScoreIntervals,
    compare,
    score_intervals,
)
from ensemble.evaluation.markdown import escape as _escape
from ensemble.evaluation.markdown import table as _table
from ensemble.evaluation.metrics import ClassScores, Metrics, Scores

_MISTAKES = 10  # shown in Markdown; all of them are in the predictions
_PROBLEMS = 20  # shown in Markdown; all of them are in the JSON
_GROUPS = 20  # likewise


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
        """95 % intervals of the figures, by bootstrap over the images."""
        return score_intervals(self.metrics.confusion)

    @cached_property
    def calibration(self) -> Calibration:
        """How far probabilities can be taken at their word, before the temperature and after."""
        return measure_calibration(
            self.labels, self.probabilities, self.temperature, same_images=self.same_images
        )

    @property
    def warnings(self) -> list[str]:
        """What a reader must know before trusting the figures: one sentence each."""
        few = [
            f"{scores.name} ({scores.support:,})"
            for scores in self.metrics.per_class
            if scores.support < FEW_IMAGES
        ]
        lines = []
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
        mistakes = np.flatnonzero(self.predicted != self.labels)
        order = np.argsort(-self.confidences[mistakes], kind="stable")
        return mistakes[order][:count].tolist()

    def summary(self) -> str:
        """Returns the few lines that a reader wants first."""
        return "\n".join(_summary_lines(self))

    def as_json(self) -> str:
        """Returns everything but the answers to single images, as JSON."""
        content = {
            "subject": self.subject,
            "classes": list(self.classes),
            "metrics": self.metrics.to_dict(),
            "intervals": {"level": LEVEL, **asdict(self.intervals)},
            "calibration": self.calibration.to_dict(),
            "groups": asdict(self.groups) if self.groups else None,
            "warnings": self.warnings,
            "training": self.training.to_dict() if self.training else None,
            "facts": dict(self.facts),
            "problems": [asdict(problem) for problem in self.problems],
        }
        return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    def as_markdown(self, pictures: Sequence[str] = ()) -> str:
        """Returns the report for a reader, as Markdown with tables.

        Args:
            pictures: Names of picture files that will lie beside it.
        """
        sections = [
            _headline(self),
            _class_section(self.metrics, self.intervals),
            _group_section(self.groups),
            _confusion_section(self.metrics, self.classes),
            _calibration_section(self.calibration),
            _mistake_section(self),
            _training_section(self.training),
            _fact_section(self.facts),
            _problem_section(self.problems),
            "\n\n".join(_picture(name) for name in pictures),
        ]
        return "\n\n".join(section for section in sections if section) + "\n"

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
    accuracy = f"  accuracy       {metrics.accuracy:7.2%}  {_percents(intervals.accuracy)}"
    macro_f1 = f"  macro-F1       {metrics.macro.f1:7.3f}  {_shares(intervals.macro_f1)}"
    if baseline:
        accuracy += f"  (always {baseline.name}: {baseline.accuracy:.2%})"
        macro_f1 += f"  (always {baseline.name}: {baseline.macro_f1:.3f})"
    weakest = _weakest(metrics)
    scores = metrics.per_class[weakest]
    return [
        f"{report.subject}: {_plural(metrics.images, 'image')}; 95 % intervals in brackets",
        accuracy,
        macro_f1,
        f"  weakest class  {scores.name}: F1 {scores.f1:.3f} "
        f"{_shares(intervals.class_f1[weakest])}, "
        f"recall {scores.recall:.1%} of {_plural(scores.support, 'image')}",
        *(f"  {warning}" for warning in report.warnings),
    ]


def _weakest(metrics: Metrics) -> int:
    """Returns the place of the class of lowest F1 among those that have images."""
    present = [place for place, scores in enumerate(metrics.per_class) if scores.support]
    return min(present, key=lambda place: metrics.per_class[place].f1)


def _percents(interval: Interval) -> str:
    return f"[{100 * interval.low:.1f}, {100 * interval.high:.1f}]"


def _shares(interval: Interval) -> str:
    return f"[{interval.low:.3f}, {interval.high:.3f}]"


def _headline(report: Report) -> str:
    metrics, intervals, baseline = report.metrics, report.intervals, report.metrics.baseline
    rows = [
        ["Accuracy", f"{metrics.accuracy:.2%}", _percents(intervals.accuracy)],
        [
            "Balanced accuracy",
            f"{metrics.balanced_accuracy:.2%}",
            _percents(intervals.balanced_accuracy),
        ],
        ["Macro-F1", f"{metrics.macro.f1:.3f}", _shares(intervals.macro_f1)],
    ]
    header = ["", "Model", "95 % interval"]
    text = (
        f"Measured on {_plural(metrics.images, 'image')}. Intervals are by bootstrap over these "
        "images: they tell what other images of the same kind would change, not what another "
        "seed would."
    )
    if baseline:
        header.append("Majority class")
        rows[0].append(f"{baseline.accuracy:.2%}")
        rows[1].append(f"{baseline.balanced_accuracy:.2%}")
        rows[2].append(f"{baseline.macro_f1:.3f}")
        text += (
            f" The majority class, {_escape(baseline.name)}, is the most frequent one in training; "
            "its column is what always answering it scores."
        )
    if metrics.top2_accuracy is not None:
        rows.append(["Top-2 accuracy", f"{metrics.top2_accuracy:.2%}"])
    rows.append(["Log loss (nats)", f"{metrics.log_loss:.3f}"])
    padded = [row + [""] * (len(header) - len(row)) for row in rows]
    warnings = "".join(f"\n\n> **Warning.** {_escape(line)}" for line in report.warnings)
    return f"# {_escape(report.subject)}\n\n{text}{warnings}\n\n{_table(header, padded)}"


def _class_section(metrics: Metrics, intervals: ScoreIntervals) -> str:
    rows = [
        [_escape(scores.name), *_rates(scores), _shares(interval), f"{scores.support:,}"]
        for scores, interval in zip(metrics.per_class, intervals.class_f1, strict=True)
    ]
    averages = (
        ("*macro average*", metrics.macro, _shares(intervals.macro_f1)),
        ("*weighted average*", metrics.weighted, ""),
    )
    rows += [
        [name, *_rates(scores), interval, f"{metrics.images:,}"]
        for name, scores, interval in averages
    ]
    table = _table(["Class", "Precision", "Recall", "F1", "95 % of F1", "Images"], rows)
    absent = [_escape(scores.name) for scores in metrics.per_class if not scores.support]
    note = f"\n\nWithout images, yet part of the macro average: {', '.join(absent)}."
    return f"## Classes\n\n{table}{note if absent else ''}"


def _rates(scores: Scores | ClassScores) -> list[str]:
    return [f"{rate:.3f}" for rate in (scores.precision, scores.recall, scores.f1)]


def _group_section(report: GroupReport | None) -> str:
    if report is None:
        return ""
    shown = sorted(report.groups, key=lambda group: group.accuracy)[:_GROUPS]
    rows = [
        [
            _escape(group.name),
            f"{group.accuracy:.2%}",
            _percents(group.accuracy_interval),
            f"{group.macro_f1:.3f}",
            _shares(group.macro_f1_interval),
            f"{group.images:,}",
        ]
        for group in report.groups
        if group in shown
    ]
    header = [_escape(report.column), "Accuracy", "95 %", "Macro-F1", "95 %", "Images"]
    text = "A group's macro-F1 is over the classes of which it has images."
    if len(shown) < len(report.groups):
        text += f" Shown are the {_GROUPS} groups of lowest accuracy of {len(report.groups):,}."
    if report.ungrouped:
        text += f" {_plural(report.ungrouped, 'image')} of no known group are left out here."
    lines = [f"## Groups\n\n{text}", _table(header, rows), describe_gaps(report, _escape)]
    return "\n\n".join(lines)


def _confusion_section(metrics: Metrics, classes: Sequence[str]) -> str:
    names = [_escape(name) for name in classes]
    rows = [
        [name, *(f"{count:,}" for count in counts)]
        for name, counts in zip(names, metrics.confusion, strict=True)
    ]
    table = _table(["True class", *names], rows)
    return f"## Confusion\n\nNumbers of images; a column is what was predicted.\n\n{table}"


def _calibration_section(calibration: Calibration) -> str:
    before, after = calibration.before, calibration.after
    rows = [
        ["Expected calibration error", f"{before.ece:.4f}", f"{after.ece:.4f}"],
        ["Negative log-likelihood (nats)", f"{before.nll:.4f}", f"{after.nll:.4f}"],
        ["Brier score, summed over classes", f"{before.brier:.4f}", f"{after.brier:.4f}"],
        ["Area under the risk-coverage curve", "", f"{calibration.aurc:.4f}"],
    ]
    header = ["Score", "Before", "After"]
    if calibration.fitted:
        text = (
            f"The model divides its logits by a temperature of {calibration.temperature:.3f}, "
            f"fitted on {FITTED_ON} images; no answer changes by it, confidences do. "
            "The history's `val_loss` is without it."
        )
    else:
        header, rows = ["Score", "Model"], [[name, value] for name, _, value in rows]
        text = "The model's probabilities are those of its training: it has no temperature."
    if calibration.same_images:
        text += (
            " The images judged here are the ones it was fitted on, so the figures after it are "
            "too good; `python -m ensemble.evaluate` on test images tells the honest ones."
        )
    return f"## Calibration\n\n{text}\n\n{_table(header, rows)}"


def _mistake_section(report: Report) -> str:
    mistakes = int(np.count_nonzero(report.predicted != report.labels))
    if not mistakes:
        return "## Mistakes\n\nNone."
    rows = [
        [
            _escape(report.names[index]),
            _escape(report.classes[report.labels[index]]),
            _escape(report.classes[report.predicted[index]]),
            f"{report.confidences[index]:.3f}",
        ]
        for index in report.worst(_MISTAKES)
    ]
    table = _table(["Image", "True class", "Predicted", "Confidence"], rows, text_columns=3)
    return (
        f"## Mistakes\n\n{mistakes:,} of {_plural(report.metrics.images, 'image')}; "
        f"the most confident ones first.\n\n{table}"
    )


def _training_section(training: TrainingSummary | None) -> str:
    if training is None:
        return ""
    text = (
        f"Trained for {_plural(training.epochs, 'epoch')}; the weights are those of epoch "
        f"{training.best_epoch}, the best by {_code(training.monitor)}."
    )
    rows = [[_code(name), f"{value:.4f}"] for name, value in training.values.items()]
    table = [_table(["History", f"Epoch {training.best_epoch}"], rows)] if rows else []
    return "\n\n".join(["## Training", text, *table])


def _fact_section(facts: Mapping[str, str]) -> str:
    if not facts:
        return ""
    lines = [f"- **{_escape(name)}**: {_escape(text)}" for name, text in facts.items()]
    return "## Data and model\n\n" + "\n".join(lines)


def _problem_section(problems: Sequence[Problem]) -> str:
    if not problems:
        return ""
    rows = [[_escape(problem.name), _escape(problem.reason)] for problem in problems[:_PROBLEMS]]
    parts = [
        f"## Left out\n\n{_plural(len(problems), 'image')} could not be used.",
        _table(["Image", "Reason"], rows, text_columns=2),
    ]
    if len(problems) > _PROBLEMS:
        parts.append(f"And {len(problems) - _PROBLEMS:,} more.")
    return "\n\n".join(parts)


def _picture(name: str) -> str:
    return f"![{name.rpartition('.')[0]}]({name})"


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _code(text: str) -> str:
    return f"`{text}`"


def _csv(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()
