"""A report as Markdown, a section for each thing that it tells."""

from collections.abc import Mapping, Sequence

import numpy as np

from ensemble.data.registry import Problem
from ensemble.metrics.calibration import FITTED_ON, Calibration
from ensemble.metrics.groups import GroupReport, describe_gaps
from ensemble.metrics.intervals import METHOD, ScoreIntervals
from ensemble.metrics.markdown import escape as _escape
from ensemble.metrics.markdown import table as _table
from ensemble.metrics.metrics import ClassScores, Metrics, Scores
from ensemble.metrics.report import Report, TrainingSummary
from ensemble.metrics.wording import percents, plural, shares

_MISTAKES = 10  # shown; all of them are in the predictions
_PROBLEMS = 20  # shown; all of them are in the JSON
_GROUPS = 20  # likewise


def as_markdown(report: Report, pictures: Sequence[str] = ()) -> str:
    """Returns a report for a reader, as Markdown with tables.

    Args:
        report: What was found.
        pictures: Names of picture files that will lie beside it.
    """
    sections = [
        _headline(report),
        _trained_on_section(report),
        _class_section(report.metrics, report.intervals),
        _group_section(report.groups),
        _confusion_section(report.metrics, report.classes),
        _calibration_section(report.calibration),
        _mistake_section(report),
        _training_section(report.training),
        _fact_section(report.facts),
        _problem_section(report.problems),
        "\n\n".join(_picture(name) for name in pictures),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _headline(report: Report) -> str:
    metrics, intervals, baseline = report.metrics, report.intervals, report.metrics.baseline
    rows = _score_rows(metrics, intervals)
    header = ["", "Model", "95 % interval"]
    text = (
        f"Measured on {plural(metrics.images, 'image')}. {METHOD}. They describe what other images "
        "of the same kind would change, not what another seed would."
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


def _score_rows(metrics: Metrics, intervals: ScoreIntervals) -> list[list[str]]:
    return [
        ["Accuracy", f"{metrics.accuracy:.2%}", percents(intervals.accuracy)],
        [
            "Balanced accuracy",
            f"{metrics.balanced_accuracy:.2%}",
            percents(intervals.balanced_accuracy),
        ],
        ["Macro-F1", f"{metrics.macro.f1:.3f}", shares(intervals.macro_f1)],
    ]


def _trained_on_section(report: Report) -> str:
    rest, intervals = report.unseen_metrics, report.unseen_intervals
    if not report.trained_on.repeats or rest is None or intervals is None:
        return ""
    table = _table(["", "Model", "95 % interval"], _score_rows(rest, intervals))
    return (
        "## Without the images that the model was trained on\n\n"
        f"Measured on {plural(rest.images, 'image')}; the others are in `duplicates.csv`.\n\n"
        f"{table}"
    )


def _class_section(metrics: Metrics, intervals: ScoreIntervals) -> str:
    rows = [
        [_escape(scores.name), *_rates(scores), shares(f1), shares(recall), f"{scores.support:,}"]
        for scores, f1, recall in zip(
            metrics.per_class, intervals.class_f1, intervals.class_recall, strict=True
        )
    ]
    averages = (
        ("*macro average*", metrics.macro, shares(intervals.macro_f1)),
        ("*weighted average*", metrics.weighted, ""),
    )
    rows += [
        [name, *_rates(scores), interval, "", f"{metrics.images:,}"]
        for name, scores, interval in averages
    ]
    header = ["Class", "Precision", "Recall", "F1", "95 % of F1", "95 % of recall", "Images"]
    table = _table(header, rows)
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
            percents(group.accuracy_interval),
            f"{group.macro_f1:.3f}",
            shares(group.macro_f1_interval),
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
        text += f" {plural(report.ungrouped, 'image')} of no known group are left out here."
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
        f"## Mistakes\n\n{mistakes:,} of {plural(report.metrics.images, 'image')}; "
        f"the most confident ones first.\n\n{table}"
    )


def _training_section(training: TrainingSummary | None) -> str:
    if training is None:
        return ""
    text = (
        f"Trained for {plural(training.epochs, 'epoch')}; the weights are those of epoch "
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
        f"## Left out\n\n{plural(len(problems), 'image')} could not be used.",
        _table(["Image", "Reason"], rows, text_columns=2),
    ]
    if len(problems) > _PROBLEMS:
        parts.append(f"And {len(problems) - _PROBLEMS:,} more.")
    return "\n\n".join(parts)


def _picture(name: str) -> str:
    return f"![{name.rpartition('.')[0]}]({name})"


def _code(text: str) -> str:
    return f"`{text}`"
