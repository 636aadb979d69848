"""The sections of a report, and the few lines of it that the console shows."""

from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np

from ensemble.data.registry import Problem
from ensemble.metrics.calibration import FITTED_ON, Calibration
from ensemble.metrics.groups import GroupReport
from ensemble.metrics.intervals import METHOD
from ensemble.metrics.metrics import METRICS, Metrics, Scores
from ensemble.metrics.rendering import as_text
from ensemble.metrics.report import Report, TrainingSummary
from ensemble.metrics.sections import Block, Facts, Figure, Notice, Pictures, Section, Table
from ensemble.plots.calibration import plot_reliability, plot_risk_coverage
from ensemble.plots.confusion import plot_confusion
from ensemble.plots.curves import plot_curves
from ensemble.plots.intervals import plot_intervals
from ensemble.plots.pictures import plot_errors
from ensemble.runs.epochs import Epochs
from ensemble.system.text import plural

_MAX_MISTAKES = 10  # shown; all of them are in the predictions
_MAX_PROBLEMS = 20  # shown; all of them are in the JSON
_MAX_GROUPS = 20  # likewise


def report_sections(
    report: Report, pictures: Block | None = None, curves: Figure | None = None
) -> list[Section]:
    """Returns the sections of a report.

    Args:
        report: The report.
        pictures: The worst mistakes; see `worst_mistakes`.
        curves: Learning curves; see `learning_curves`.
    """
    metrics = report.metrics
    sections = chain(
        [_metric_section(report)],
        _unseen_section(report),
        [_class_section(metrics)],
        _group_section(report.groups),
        [_confusion_section(metrics, report.classes)],
        [_calibration_section(report.calibration)],
        [_mistake_section(report, pictures)],
        _training_section(report.training, curves),
        [Section("Data and model", [Facts(report.facts)])] if report.facts else [],
        _problem_section(report.problems),
    )
    return list(sections)


def summarize(report: Report) -> str:
    """Returns the lines of a report that the console shows."""
    metrics = report.metrics
    weakest = min((s for s in metrics.per_class if s.support), key=lambda scores: scores.f1)
    lines: list[Block] = [
        score_table(metrics, headline=True),
        f"Weakest class: {weakest.name}, F1 {weakest.f1:.3f} {weakest.f1_interval:.3f}, "
        f"recall {weakest.recall:.1%} {weakest.recall_interval:.1%} of "
        f"{plural(weakest.support, 'image')}",
        *report.warnings,
    ]
    return as_text([Section(f"{report.subject}: {plural(metrics.images, 'image')}", lines)])


def score_table(metrics: Metrics, *, headline: bool = False) -> Table:
    """Returns all metrics, or those of the headline, with intervals and baselines."""
    header = ["", "Model", "95 % interval"]
    if metrics.majority is not None:
        header.append(f"Majority class ({metrics.majority})")
    rows = [
        [metric.title, *metric.show(metrics.scores[name])][: len(header)]
        for name, metric in METRICS.items()
        if name in metrics.scores and (metric.headline or not headline)
    ]
    return Table(header, rows)


def worst_mistakes(report: Report, images: Sequence[np.ndarray]) -> Pictures:
    """Returns pictures of the worst mistakes.

    Args:
        report: The report.
        images: Pixels of as many of the worst mistakes, in their order.
    """
    found = report.predictions
    worst = found.worst(len(images))
    truths = [found.classes[label] for label in found.labels[worst]]
    predicted = [found.classes[label] for label in found.predicted[worst]]
    confidences = found.confidences[worst].tolist()
    captions = [
        (truth, f"→ \u2068{other}\u2069 {confidence:.0%}")  # isolates names written right to left
        for truth, other, confidence in zip(truths, predicted, confidences, strict=True)
    ]
    return Pictures(
        "errors",
        "Most confident mistakes",
        "Most confident mistakes: true class → predicted class and its probability",
        plot_errors,
        {
            "images": images,
            "truths": truths,
            "predictions": predicted,
            "confidences": confidences,
        },
        images,
        captions,
        [found.names[index] for index in worst],
    )


def learning_curves(report: Report, epochs: Epochs) -> Figure | None:
    """Returns the learning curves; None where no training is known."""
    if report.training is None or not epochs.phases:
        return None
    best = report.training.best_epoch
    return Figure(
        "curves",
        "Training",
        f"Accuracy and loss over {len(epochs.phases)} epochs; epoch {best} is the best",
        plot_curves,
        {"history": epochs.values, "best_epoch": best, "fine_tuned_from": epochs.second_phase},
    )


def _metric_section(report: Report) -> Section:
    text = (
        f"{report.subject}: {plural(report.metrics.images, 'image')}. {METHOD}. They describe what "
        "other images of the same kind would change, not what another seed would."
    )
    if report.majority is not None:
        text += (
            " The majority class is the most frequent one in training; its column is the score of "
            "a baseline that always predicts it."
        )
    notices = [Notice(warning) for warning in report.warnings]
    return Section("Metrics", [*notices, score_table(report.metrics), text])


def _unseen_section(report: Report) -> Iterator[Section]:
    rest = report.unseen_metrics
    if report.trained_on.duplicates and rest is not None:
        text = f"Measured on {plural(rest.images, 'image')}; the others are in duplicates.csv."
        table = score_table(rest)
        yield Section("Without the images that the model was trained on", [text, table])


def _class_section(metrics: Metrics) -> Section:
    rows = [
        [s.name, *_rates(s), f"{s.f1_interval:.3f}", f"{s.recall_interval:.3f}", f"{s.support:,}"]
        for s in metrics.per_class
    ]
    macro_interval = METRICS["macro_f1"].show(metrics.scores["macro_f1"])[1]
    for name, scores, interval in (
        ("macro average", metrics.macro, macro_interval),
        ("weighted average", metrics.weighted, ""),
    ):
        rows.append([name, *_rates(scores), interval, "", f"{metrics.images:,}"])
    header = ["Class", "Precision", "Recall", "F1", "95 % of F1", "95 % of recall", "Images"]
    absent = [scores.name for scores in metrics.per_class if not scores.support]
    note = f"Without images, yet part of the macro average: {', '.join(absent)}."
    names = [scores.name for scores in metrics.per_class]
    bars = {
        "F1": [s.f1_interval.around(s.f1) for s in metrics.per_class],
        "Recall": [s.recall_interval.around(s.recall) for s in metrics.per_class],
    }
    figure = Figure(
        "classes",
        "F1 and recall of each class",
        "F1 and recall of each class with 95 % intervals",
        plot_intervals,
        {"names": names, "scores": bars},
    )
    return Section("Classes", [Table(header, rows), *([note] if absent else []), figure])


def _rates(scores: Scores) -> list[str]:
    return [f"{rate:.3f}" for rate in (scores.precision, scores.recall, scores.f1)]


def _group_section(report: GroupReport | None) -> Iterator[Section]:
    if report is None:
        return
    shown = sorted(report.groups, key=lambda group: group.accuracy)[:_MAX_GROUPS]
    shown = [group for group in report.groups if group in shown]
    rows = [
        [
            group.name,
            f"{group.accuracy:.2%}",
            f"{group.accuracy_interval:.1%}",
            f"{group.macro_f1:.3f}",
            f"{group.macro_f1_interval:.3f}",
            f"{group.images:,}",
        ]
        for group in shown
    ]
    header = [report.column, "Accuracy", "95 %", "Macro-F1", "95 %", "Images"]
    text = "A group's macro-F1 is over the classes of which it has images."
    if len(shown) < len(report.groups):
        text += f" Shown are the {len(shown)} groups of lowest accuracy of {len(report.groups):,}."
    if report.ungrouped:
        text += f" {plural(report.ungrouped, 'image')} of no known group are left out here."
    figure = Figure(
        "groups",
        f"Metrics by {report.column}",
        f"Accuracy and macro-F1 by {report.column} with 95 % intervals",
        plot_intervals,
        {
            "names": [group.name for group in shown],
            "scores": {
                "Accuracy": [g.accuracy_interval.around(g.accuracy) for g in shown],
                "Macro-F1": [g.macro_f1_interval.around(g.macro_f1) for g in shown],
            },
        },
    )
    yield Section("Groups", [text, Table(header, rows), report.describe_gaps(), figure])


def _confusion_section(metrics: Metrics, classes: Sequence[str]) -> Section:
    rows = [
        [name, *(f"{count:,}" for count in counts)]
        for name, counts in zip(classes, metrics.confusion, strict=True)
    ]
    figure = Figure(
        "confusion",
        "Confusion matrix",
        "Confusion matrix: counts, and proportions of each true class",
        plot_confusion,
        {"counts": metrics.confusion, "classes": classes},
    )
    text = "Numbers of images; a row is a true class, a column a predicted one."
    return Section("Confusion", [text, Table(["True class", *classes], rows), figure])


def _calibration_section(calibration: Calibration) -> Section:
    before, after = calibration.before, calibration.after
    rows = [
        ["Expected calibration error", f"{before.ece:.4f}", f"{after.ece:.4f}"],
        ["Log loss (nats)", f"{before.nll:.4f}", f"{after.nll:.4f}"],
        ["Brier score, summed over classes", f"{before.brier:.4f}", f"{after.brier:.4f}"],
        ["Area under the risk-coverage curve", "", f"{calibration.aurc:.4f}"],
    ]
    header = ["Score", "Before", "After"]
    if calibration.fitted:
        text = (
            f"The model divides its logits by a temperature of {calibration.temperature:.3f}, "
            f"fitted on {FITTED_ON} images. It changes confidences, but no predicted class. "
            "The history's val_loss is without it."
        )
    else:
        header, rows = ["Score", "Model"], [[name, value] for name, _, value in rows]
        text = "The model's probabilities are those of its training: no temperature was fitted."
    if calibration.same_images:
        text += (
            " It was fitted on the images evaluated here, so the scores after it are optimistic; "
            "evaluate on test images with python -m ensemble.evaluate."
        )
    reliability = Figure(
        "reliability",
        "Reliability",
        "Reliability diagram: accuracy and number of images by confidence",
        plot_reliability,
        {"panels": calibration.panels()},
    )
    risks = Figure(
        "risk_coverage",
        "Risk and coverage",
        "Proportion of mistakes among the most confident images",
        plot_risk_coverage,
        {"risks": calibration.risks},
    )
    return Section("Calibration", [text, Table(header, rows), reliability, risks])


def _mistake_section(report: Report, pictures: Block | None) -> Section:
    found = report.predictions
    mistakes = len(found.worst(len(found)))
    shown = [pictures] if pictures else []
    if not mistakes:
        return Section("Mistakes", ["None.", *shown])
    rows = [
        [
            found.names[index],
            found.classes[found.labels[index]],
            found.classes[found.predicted[index]],
            f"{found.confidences[index]:.3f}",
        ]
        for index in found.worst(_MAX_MISTAKES)
    ]
    text = f"{mistakes:,} of {plural(len(found), 'image')}; the most confident ones first."
    table = Table(["Image", "True class", "Predicted", "Confidence"], rows, text_columns=3)
    return Section("Mistakes", [text, table, *shown])


def _training_section(training: TrainingSummary | None, curves: Figure | None) -> Iterator[Section]:
    if training is None:
        return
    text = (
        f"Trained for {plural(training.epochs, 'epoch')}; the weights are those of epoch "
        f"{training.best_epoch}, the best by {training.monitor}."
    )
    rows = [
        [name, "" if value is None else f"{value:.4f}"] for name, value in training.values.items()
    ]
    table = [Table(["History", f"Epoch {training.best_epoch}"], rows)] if rows else []
    yield Section("Training", [text, *table, *([curves] if curves else [])])


def _problem_section(problems: Sequence[Problem]) -> Iterator[Section]:
    if not problems:
        return
    rows = [[problem.name, problem.reason] for problem in problems[:_MAX_PROBLEMS]]
    blocks: list[Block] = [f"{plural(len(problems), 'image')} could not be used."]
    blocks.append(Table(["Image", "Reason"], rows, text_columns=2))
    if len(problems) > _MAX_PROBLEMS:
        blocks.append(f"And {len(problems) - _MAX_PROBLEMS:,} more.")
    yield Section("Left out", blocks)
