"""A report tells the same numbers in every form."""

import csv
import io
import json

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from ensemble.data.registry import Problem
from ensemble.metrics.metrics import measure
from ensemble.metrics.report import Report, TrainingSummary
from ensemble.metrics.report_markdown import as_markdown

CLASSES = ["neutral", "happy", "sad"]
TRAINING = TrainingSummary(
    epochs=19, best_epoch=14, monitor="val_accuracy", values={"accuracy": 0.8258, "val_loss": 0.62}
)


def make_report(
    labels: list[int], probabilities: np.ndarray, classes: list[str] = CLASSES, **more
) -> Report:
    truth = np.array(labels)
    counts = [1, 3, 2] + [0] * (len(classes) - 3)
    return Report(
        subject=more.pop("subject", "three_class on validation"),
        metrics=measure(truth, probabilities, classes, counts[: len(classes)]),
        classes=classes,
        names=more.pop("names", [f"{index}.png" for index in range(len(labels))]),
        labels=truth,
        probabilities=probabilities,
        **more,
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


def csv_rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


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
    rows, metrics = markdown_rows(as_markdown(report)), report.metrics

    assert rows[""] == ["Model", "95 % interval", "Majority class"]
    for name, figure, baseline in (
        ("Accuracy", f"{metrics.accuracy:.2%}", f"{metrics.baseline.accuracy:.2%}"),
        ("Balanced accuracy", f"{metrics.balanced_accuracy:.2%}", "33.33%"),
        ("Macro-F1", f"{metrics.macro.f1:.3f}", f"{metrics.baseline.macro_f1:.3f}"),
    ):
        assert [rows[name][0], rows[name][2]] == [figure, baseline]
    assert rows["Top-2 accuracy"][0] == f"{metrics.top2_accuracy:.2%}"
    assert rows["Log loss (nats)"][0] == f"{metrics.log_loss:.3f}"


def test_markdown_holds_scores_of_classes_and_their_averages(report):
    text = as_markdown(report)
    section = text[text.index("## Classes") : text.index("## Confusion")]
    rows = markdown_rows(section)
    intervals = {name: cells.pop(3) for name, cells in rows.items()}
    for name, interval in zip(CLASSES, report.intervals.class_f1, strict=True):
        assert intervals[name] == f"[{interval.low:.3f}, {interval.high:.3f}]"
    recalls = {name: cells.pop(3) for name, cells in rows.items()}
    for name, interval in zip(CLASSES, report.intervals.class_recall, strict=True):
        assert recalls[name] == f"[{interval.low:.3f}, {interval.high:.3f}]"
    scores = np.transpose(precision_recall_fscore_support(report.labels, report.predicted))

    for name, expected in zip(CLASSES, scores, strict=True):
        assert [float(cell) for cell in rows[name]] == pytest.approx(list(expected), abs=5e-4)
    for average in ("macro", "weighted"):
        expected = precision_recall_fscore_support(
            report.labels, report.predicted, average=average
        )[:3]
        *rates, images = map(float, rows[f"*{average} average*"])
        assert rates == pytest.approx(expected, abs=5e-4)
        assert images == 300


def test_markdown_holds_the_confusion_counts(report):
    text = as_markdown(report)
    rows = markdown_rows(text[text.index("## Confusion") : text.index("## Mistakes")])

    counts = [[int(cell) for cell in rows[name]] for name in CLASSES]
    np.testing.assert_array_equal(counts, confusion_matrix(report.labels, report.predicted))


def test_every_markdown_table_is_rectangular(report):
    for block in as_markdown(report).split("\n\n"):
        if block.startswith("|"):
            assert len({line.count("|") for line in block.splitlines()}) == 1
            assert len({len(line) for line in block.splitlines()}) == 1


def test_markdown_tells_training_facts_problems_and_pictures(report):
    text = as_markdown(report, ["confusion.png"])

    assert "19 epochs" in text
    assert "epoch 14, the best by `val_accuracy`" in text
    assert markdown_rows(text)["`val_loss`"] == ["0.6200"]
    assert "- **Data**: demo, 900 images" in text
    assert "1 image could not be used." in text
    assert markdown_rows(text)["bad.png"] == ["not an image"]
    assert "![confusion](confusion.png)" in text


def test_markdown_leaves_out_what_is_not_known():
    text = as_markdown(make_report([0, 1, 2], np.eye(3)))

    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert headings == ["## Classes", "## Confusion", "## Calibration", "## Mistakes"]
    assert "## Mistakes\n\nNone." in text


def test_markdown_counts_problems_that_it_does_not_list():
    problems = [Problem(f"{index}.png", "empty") for index in range(1234)]
    text = as_markdown(make_report([0], np.eye(3)[:1], problems=problems))

    listed = text.count("| empty")
    assert 0 < listed < 100
    assert "1,234 images could not be used." in text
    assert f"And {1234 - listed:,} more." in text


def test_markdown_names_classes_without_images():
    text = as_markdown(make_report([0, 0], np.eye(3)[[0, 1]]))

    assert "Without images, yet part of the macro average: happy, sad." in text


def test_names_cannot_break_a_markdown_table():
    classes = ["a|b", "*c*", "line\nbreak"]
    report = make_report([0], np.eye(3)[1:2], classes, names=["x|y.png"])

    for block in as_markdown(report).split("\n\n"):
        if block.startswith("|"):
            assert len({line.replace(r"\|", "").count("|") for line in block.splitlines()}) == 1
    assert r"x\|y.png" in as_markdown(report)
    assert r"\*c\*" in as_markdown(report)


def test_confusion_csv_reads_back(report):
    header, *rows = csv.reader(io.StringIO(report.confusion_csv()))

    assert header == ["true", *CLASSES]
    assert [row[0] for row in rows] == CLASSES
    np.testing.assert_array_equal(
        [[int(cell) for cell in row[1:]] for row in rows],
        confusion_matrix(report.labels, report.predicted),
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_predictions_csv_reads_back_exactly(report, dtype):
    probabilities = report.probabilities.astype(dtype)
    probabilities[0] = [1, 1e-9, 0]
    again = make_report(report.labels.tolist(), probabilities)
    rows = csv_rows(again.predictions_csv())

    assert list(rows[0]) == ["name", "label", "predicted", "confidence", *CLASSES]
    assert [row["name"] for row in rows] == list(again.names)
    assert [CLASSES.index(row["label"]) for row in rows] == again.labels.tolist()
    assert [CLASSES.index(row["predicted"]) for row in rows] == again.predicted.tolist()
    assert [dtype(row["confidence"]) for row in rows] == again.confidences.tolist()
    read = np.array([[row[name] for name in CLASSES] for row in rows]).astype(dtype)
    np.testing.assert_array_equal(read, probabilities)


def test_csv_keeps_commas_and_quotes_in_names():
    report = make_report([0], np.eye(3)[:1], ["a, b", 'say "c"', "d"], names=["x, y.png"])
    (row,) = csv_rows(report.predictions_csv())

    assert row["name"] == "x, y.png"
    assert row["label"] == "a, b"
    assert row['say "c"'] == "0.0"


def test_metrics_can_be_measured_again_from_the_predictions(report):
    rows = csv_rows(report.predictions_csv())
    labels = np.array([CLASSES.index(row["label"]) for row in rows])
    probabilities = np.array([[float(row[name]) for name in CLASSES] for row in rows])

    again = measure(labels, probabilities, CLASSES)
    assert again.confusion == report.metrics.confusion
    assert again.log_loss == pytest.approx(report.metrics.log_loss, abs=1e-6)


def test_worst_are_the_most_confident_mistakes(report):
    worst = report.worst(1000)
    wrong = np.flatnonzero(report.predicted != report.labels)

    assert sorted(worst) == wrong.tolist()
    assert sorted(report.confidences[worst], reverse=True) == report.confidences[worst].tolist()
    assert report.worst(5) == worst[:5]
    assert report.worst(0) == []


def test_every_form_tells_the_intervals(report):
    interval = report.intervals.accuracy
    told = json.loads(report.as_json())["intervals"]

    assert interval.low < report.metrics.accuracy < interval.high
    assert told["level"] == 0.95
    assert told["accuracy"] == {"low": interval.low, "high": interval.high}
    assert len(told["class_f1"]) == len(CLASSES)
    brackets = f"[{100 * interval.low:.1f}, {100 * interval.high:.1f}]"
    assert brackets in report.summary().splitlines()[1]
    assert markdown_rows(as_markdown(report))["Accuracy"][1] == brackets


def test_a_class_of_fewer_than_30_images_is_warned_of_in_every_form():
    labels = [0] * 30 + [1] * 29 + [2] * 40
    report = make_report(labels, np.eye(3)[labels])

    (warning,) = report.warnings
    assert "Fewer than 30 images" in warning
    assert "happy (29)" in warning
    assert "neutral" not in warning
    assert warning in report.summary()
    assert warning in as_markdown(report)
    assert json.loads(report.as_json())["warnings"] == [warning]


def test_enough_images_and_a_clear_gain_give_no_warning(report):
    assert report.warnings == []
    assert "Warning" not in as_markdown(report)


def test_a_gain_over_the_majority_that_may_be_chance_is_no_proven_gain():
    labels = [1] * 60 + [0] * 30 + [2] * 30
    answers = [1] * 59 + [0] + [0] * 3 + [1] * 27 + [1] * 30  # 3 more right, 1 more wrong
    (warning,) = make_report(labels, np.eye(3)[answers]).warnings

    assert "no proven gain in accuracy over always answering happy" in warning


def test_a_perfect_model_has_no_worst():
    assert make_report([0, 1, 2], np.eye(3)).worst(24) == []


def test_summary_tells_accuracy_baseline_macro_f1_and_the_weakest_class(report):
    metrics = report.metrics
    weakest = min(metrics.per_class, key=lambda scores: scores.f1)
    first, accuracy, macro_f1, last = report.summary().splitlines()

    assert first.startswith("three_class on validation: 300 images")
    assert f"{metrics.accuracy:.2%}" in accuracy
    assert f"always happy: {metrics.baseline.accuracy:.2%}" in accuracy
    assert f"{metrics.macro.f1:.3f}" in macro_f1
    assert f"{weakest.name}: F1 {weakest.f1:.3f}" in last


def test_summary_owns_up_to_a_useless_model():
    always_happy = np.tile([0.1, 0.8, 0.1], (4, 1))

    assert "no better than always answering happy" in (
        make_report([0, 1, 1, 2], always_happy).summary()
    )


def test_weakest_class_is_one_that_has_images():
    assert "weakest class  neutral" in make_report([0, 0], np.eye(3)[[0, 1]]).summary()


def test_report_without_a_baseline_claims_none():
    labels, probabilities = np.array([0, 1]), np.eye(2)
    metrics = measure(labels, probabilities, ["a", "b"])
    report = Report("run", metrics, ["a", "b"], ["0.png", "1.png"], labels, probabilities)

    assert "always" not in report.summary()
    assert markdown_rows(as_markdown(report))["Accuracy"] == ["100.00%", "[34.2, 100.0]"]
    assert json.loads(report.as_json())["metrics"]["baseline"] is None


def test_parts_that_do_not_fit_are_refused(report):
    with pytest.raises(ValueError, match="300 images"):
        Report("run", report.metrics, CLASSES, ["0.png"], report.labels, report.probabilities)
