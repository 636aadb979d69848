"""A report shows the same numbers in every form."""

import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from ensemble.data.leakage import Duplicate
from ensemble.data.registry import Problem
from ensemble.metrics.metrics import measure
from ensemble.metrics.predictions import Predictions
from ensemble.metrics.rendering import as_markdown
from ensemble.metrics.report import Report, TrainingSummary
from ensemble.metrics.report_sections import report_sections, summarize
from ensemble.metrics.trained_on import TrainedOn

CLASSES = ["neutral", "happy", "sad"]
TRAINING = TrainingSummary(
    epochs=19, best_epoch=14, monitor="val_accuracy", values={"accuracy": 0.8258, "val_loss": 0.62}
)


def make_report(
    labels: list[int], probabilities: np.ndarray, classes: list[str] = CLASSES, **more
) -> Report:
    names = more.pop("names", [f"{index}.png" for index in range(len(labels))])
    return Report(
        subject="three_class on validation",
        predictions=Predictions(classes, names, np.array(labels), probabilities),
        **{"majority": classes[1], **more},
    )


@pytest.fixture(scope="module")
def report() -> Report:
    random = np.random.default_rng(7)
    labels = random.integers(3, size=300)
    probabilities = random.dirichlet(np.ones(3), size=300) + 0.8 * np.eye(3)[labels]
    return make_report(
        labels.tolist(),
        (probabilities / 1.8).astype(np.float32),
        training=TRAINING,
        facts={"Data": "demo, 900 images", "Branches": "vgg16 + densenet121"},
        problems=[Problem("bad.png", "not an image")],
    )


def markdown_rows(text: str) -> dict[str, list[str]]:
    """Cells of all tables by the first cell of their row."""
    lines = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    return {cells[0].strip(): [cell.strip() for cell in cells[1:]] for cells in lines}


def markdown(report: Report) -> str:
    return as_markdown(report_sections(report))


def test_json_holds_metrics_training_facts_and_problems(report):
    content = json.loads(report.as_json())

    assert content["subject"] == "three_class on validation"
    assert content["classes"] == CLASSES
    assert content["metrics"] == report.metrics.to_dict()
    assert content["training"] == {
        "epochs": 19,
        "best_epoch": 14,
        "monitor": "val_accuracy",
        "values": {"accuracy": 0.8258, "val_loss": 0.62},
    }
    assert content["facts"]["Branches"] == "vgg16 + densenet121"
    assert content["problems"] == [{"name": "bad.png", "reason": "not an image"}]


def test_json_has_no_nan():
    training = TrainingSummary(2, 1, "val_loss", {"loss": float("nan"), "accuracy": 0.5})
    content = json.loads(make_report([0], np.eye(3)[:1], training=training).as_json())

    assert content["training"]["values"] == {"loss": None, "accuracy": 0.5}


def test_headline_stands_beside_the_majority_class(report):
    rows, metrics = markdown_rows(markdown(report)), report.metrics

    assert rows[""] == ["Model", "95 % interval", "Majority class (happy)"]
    scores = metrics.scores
    for name, value, baseline in (
        ("Accuracy", f"{metrics.accuracy:.2%}", f"{scores['accuracy'].baseline:.2%}"),
        ("Balanced accuracy", f"{scores['balanced_accuracy'].value:.2%}", "33.33%"),
        ("Macro-F1", f"{metrics.macro.f1:.3f}", f"{scores['macro_f1'].baseline:.3f}"),
    ):
        assert [rows[name][0], rows[name][2]] == [value, baseline]
    assert rows["Top-2 accuracy"][0] == f"{scores['top2_accuracy'].value:.2%}"
    text = markdown(report)
    loss = markdown_rows(text[: text.index("## Classes")])["Log loss (nats)"]
    assert loss[0] == f"{scores['log_loss'].value:.3f}"


def test_markdown_holds_scores_of_classes_and_their_averages(report):
    text = markdown(report)
    section = text[text.index("## Classes") : text.index("## Confusion")]
    rows = markdown_rows(section)
    intervals = {name: cells.pop(3) for name, cells in rows.items()}
    recalls = {name: cells.pop(3) for name, cells in rows.items()}
    for scores in report.metrics.per_class:
        assert intervals[scores.name] == f"{scores.f1_interval:.3f}"
        assert recalls[scores.name] == f"{scores.recall_interval:.3f}"
    found = report.predictions
    scores = np.transpose(precision_recall_fscore_support(found.labels, found.predicted))

    for name, expected in zip(CLASSES, scores, strict=True):
        assert [float(cell) for cell in rows[name]] == pytest.approx(list(expected), abs=5e-4)
    for average in ("macro", "weighted"):
        expected = precision_recall_fscore_support(
            report.predictions.labels, report.predictions.predicted, average=average
        )[:3]
        *rates, images = map(float, rows[f"{average} average"])
        assert rates == pytest.approx(expected, abs=5e-4)
        assert images == 300


def test_markdown_holds_the_confusion_counts(report):
    text = markdown(report)
    rows = markdown_rows(text[text.index("## Confusion") : text.index("## Mistakes")])

    counts = [[int(cell) for cell in rows[name]] for name in CLASSES]
    found = report.predictions
    np.testing.assert_array_equal(counts, confusion_matrix(found.labels, found.predicted))


def test_every_markdown_table_is_rectangular(report):
    for block in markdown(report).split("\n\n"):
        if block.startswith("|"):
            assert len({line.count("|") for line in block.splitlines()}) == 1
            assert len({len(line) for line in block.splitlines()}) == 1


def test_markdown_shows_training_facts_problems_and_figures(report):
    text = markdown(report)

    assert "19 epochs" in text
    assert "epoch 14, the best by val_accuracy" in text
    assert markdown_rows(text)["val_loss"] == ["0.6200"]
    assert "- **Data**: demo, 900 images" in text
    assert "1 image could not be used." in text
    assert markdown_rows(text)["bad.png"] == ["not an image"]
    for name in ("classes", "confusion", "reliability", "risk_coverage"):
        assert f"]({name}.png)" in text


def test_markdown_leaves_out_what_is_not_known():
    text = markdown(make_report([0, 1, 2], np.eye(3)))

    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert headings == [
        f"## {name}" for name in ("Metrics", "Classes", "Confusion", "Calibration", "Mistakes")
    ]
    assert "## Mistakes\n\nNone." in text


def test_markdown_counts_problems_that_it_does_not_list():
    problems = [Problem(f"{index}.png", "empty") for index in range(1234)]
    text = markdown(make_report([0], np.eye(3)[:1], problems=problems))

    listed = text.count("| empty")
    assert 0 < listed < 100
    assert "1,234 images could not be used." in text
    assert f"And {1234 - listed:,} more." in text


def test_markdown_names_classes_without_images():
    text = markdown(make_report([0, 0], np.eye(3)[[0, 1]]))

    assert "Without images, yet part of the macro average: happy, sad." in text


def test_names_cannot_break_a_markdown_table():
    classes = ["a|b", "*c*", "line\nbreak"]
    report = make_report([0], np.eye(3)[1:2], classes, names=["x|y.png"])

    for block in markdown(report).split("\n\n"):
        if block.startswith("|"):
            assert len({line.replace(r"\|", "").count("|") for line in block.splitlines()}) == 1
    assert r"x\|y.png" in markdown(report)
    assert r"\*c\*" in markdown(report)


def test_metrics_can_be_measured_again_from_the_dictionary_and_the_predictions(report):
    content = json.loads(report.as_json())

    again = Report.from_dict(content, report.predictions)

    assert again.to_dict() == report.to_dict() == content
    assert again.metrics == measure(
        report.predictions.labels, report.predictions.probabilities, CLASSES, "happy"
    )


def test_duplicates_of_training_images_are_read_back(report):
    repeats = [Duplicate("a.png", "train", "3.png", "evaluated", "near")]
    leaky = replace(report, trained_on=TrainedOn(repeats, 2))
    content = json.loads(leaky.as_json())

    again = Report.from_dict(content, report.predictions, repeats)

    assert again.to_dict() == content
    assert again.warnings == leaky.warnings != []


def test_a_dictionary_of_an_earlier_version_is_read(report):
    """Without the entries that were added later."""
    content = json.loads(report.as_json())
    for entry in ("trained_on", "intervals"):
        del content[entry]
    del content["metrics"]["macro_f1"]

    assert Report.from_dict(content, report.predictions).to_dict() == report.to_dict()


@pytest.mark.parametrize("entry", ["metrics", "calibration", "training", "groups", "classes"])
def test_a_damaged_dictionary_is_rejected(report, entry):
    with pytest.raises(ValueError, match=r"\w"):
        Report.from_dict({**report.to_dict(), entry: {"best": 1}}, report.predictions)


def test_every_form_shows_the_intervals(report):
    interval = report.metrics.scores["accuracy"].interval
    told = json.loads(report.as_json())["intervals"]

    assert interval.low < report.metrics.accuracy < interval.high
    assert told["level"] == 0.95
    assert told["accuracy"] == {"low": interval.low, "high": interval.high}
    assert len(told["class_f1"]) == len(CLASSES)
    brackets = f"[{100 * interval.low:.1f}, {100 * interval.high:.1f}]"
    assert brackets in summarize(report).splitlines()[2]
    assert markdown_rows(markdown(report))["Accuracy"][1] == brackets


def test_a_class_of_fewer_than_30_images_is_warned_of_in_every_form():
    labels = [0] * 30 + [1] * 29 + [2] * 40
    report = make_report(labels, np.eye(3)[labels])

    (warning,) = report.warnings
    assert "Fewer than 30 images" in warning
    assert "happy (29)" in warning
    assert "neutral" not in warning
    assert warning in summarize(report)
    assert warning in markdown(report)
    assert json.loads(report.as_json())["warnings"] == [warning]


def test_enough_images_and_a_clear_gain_give_no_warning(report):
    assert report.warnings == []
    assert "Warning" not in markdown(report)


def test_a_gain_over_the_majority_that_may_be_chance_is_not_significant():
    labels = [1] * 60 + [0] * 30 + [2] * 30
    answers = [1] * 59 + [0] + [0] * 3 + [1] * 27 + [1] * 30  # 3 more right, 1 more wrong
    (warning,) = make_report(labels, np.eye(3)[answers]).warnings

    assert "not significantly better in accuracy than the majority-class baseline" in warning


def test_summary_shows_accuracy_baseline_macro_f1_and_the_weakest_class(report):
    metrics = report.metrics
    weakest = min(metrics.per_class, key=lambda scores: scores.f1)
    first, header, accuracy, macro_f1, last = summarize(report).splitlines()

    assert first.startswith("three_class on validation: 300 images")
    assert f"{metrics.accuracy:.2%}" in accuracy
    assert "Majority class (happy)" in header
    assert accuracy.endswith(f"{metrics.scores['accuracy'].baseline:.2%}")
    assert f"{metrics.macro.f1:.3f}" in macro_f1
    assert f"{weakest.name}, F1 {weakest.f1:.3f}" in last


def test_summary_owns_up_to_a_useless_model():
    always_happy = np.tile([0.1, 0.8, 0.1], (4, 1))

    assert "no better than the majority-class baseline (happy)" in (
        summarize(make_report([0, 1, 1, 2], always_happy))
    )


def test_weakest_class_is_one_that_has_images():
    assert "Weakest class: neutral" in summarize(make_report([0, 0], np.eye(3)[[0, 1]]))


def test_report_without_a_baseline_claims_none():
    report = make_report([0, 1], np.eye(2), ["a", "b"], majority=None)

    assert "Majority" not in summarize(report)
    assert markdown_rows(markdown(report))["Accuracy"] == ["100.00%", "[34.2, 100.0]"]
    assert json.loads(report.as_json())["metrics"]["baseline"] is None
