"""Predictions are read back as they were written, and matched by image and class."""

import csv
from pathlib import Path

import numpy as np
import pytest

from configs.errors import RunError
from ensemble.metrics.predictions import Predictions, arrange_alike, read_predictions
from ensemble.runs.run import Run

CLASSES = ("neutral", "happy", "sad")


@pytest.fixture(scope="module")
def predictions() -> Predictions:
    random = np.random.default_rng(7)
    labels = random.integers(3, size=300)
    probabilities = (random.dirichlet(np.ones(3), size=300) + 0.8 * np.eye(3)[labels]) / 1.8
    return Predictions(CLASSES, [f"{row}.png" for row in range(300)], labels, probabilities)


def write(found: Predictions, folder: Path) -> None:
    Run(folder).write_table("predictions.csv", found.header(), found.rows())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_they_are_read_back_exactly(predictions, dtype, tmp_path):
    probabilities = predictions.probabilities.astype(dtype)
    probabilities[0] = [1, 1e-9, 0]
    written = Predictions(CLASSES, predictions.names, predictions.labels, probabilities)
    write(written, tmp_path)

    with (tmp_path / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["name", "label", "predicted", "confidence", *CLASSES]
    assert [CLASSES.index(row["predicted"]) for row in rows] == written.predicted.tolist()
    assert [dtype(row["confidence"]) for row in rows] == written.confidences.tolist()
    found = read_predictions(tmp_path)
    assert (found.classes, list(found.names)) == (CLASSES, written.names)
    np.testing.assert_array_equal(found.labels, written.labels)
    np.testing.assert_array_equal(found.probabilities.astype(dtype), probabilities)


def test_commas_and_quotes_in_names_are_kept(tmp_path):
    write(Predictions(["a, b", 'say "c"'], ["x, y.png"], np.array([0]), np.eye(2)[:1]), tmp_path)

    found = read_predictions(tmp_path)

    assert found.classes == ("a, b", 'say "c"')
    assert found.names == ("x, y.png",)


def test_worst_are_the_most_confident_mistakes(predictions):
    worst = predictions.worst(1000)
    wrong = np.flatnonzero(predictions.predicted != predictions.labels)

    assert sorted(worst) == wrong.tolist()
    confidences = predictions.confidences[worst].tolist()
    assert sorted(confidences, reverse=True) == confidences
    assert predictions.worst(5) == worst[:5]
    assert predictions.worst(0) == []


def test_a_perfect_model_has_no_worst():
    assert Predictions(CLASSES, "abc", np.arange(3), np.eye(3)).worst(24) == []


def test_shapes_must_fit(predictions):
    with pytest.raises(ValueError, match=r"1 images and 3 classes"):
        Predictions(CLASSES, ["0.png"], predictions.labels, predictions.probabilities)


def test_images_and_classes_are_matched_by_name(predictions):
    order = np.random.default_rng(0).permutation(300)
    names = [predictions.names[row] for row in order]
    shuffled = Predictions(
        CLASSES[::-1],
        names,
        2 - predictions.labels[order],
        predictions.probabilities[order, ::-1],
    )
    other = Predictions(CLASSES, names[::-1], predictions.labels, predictions.probabilities)

    [_, found] = arrange_alike([predictions, shuffled])

    np.testing.assert_array_equal(found.probabilities, predictions.probabilities)
    assert arrange_alike([predictions, other]) is None


def test_a_missing_file_is_reported(tmp_path):
    with pytest.raises(RunError, match=r"predictions\.csv cannot be read"):
        read_predictions(tmp_path)
