"""Metrics agree with scikit-learn and with figures worked out by hand."""

import json
import warnings

import numpy as np
import pytest
from sklearn import metrics as reference

from configs.errors import UserError
from ensemble.metrics.metrics import Metrics, majority_class, measure

CLOSE = {"rel": 0, "abs": 1e-9}


def answers(num_classes: int, images: int = 500) -> tuple[np.ndarray, np.ndarray]:
    """Labels and probabilities of a fair classifier on unbalanced classes."""
    random = np.random.default_rng(num_classes)
    shares = random.dirichlet(np.full(num_classes, 3.0))
    labels = random.choice(num_classes, size=images, p=shares)
    logits = random.normal(size=(images, num_classes)) + 1.2 * np.eye(num_classes)[labels]
    odds = np.exp(logits)
    return labels, (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)


def value_of(metrics: Metrics, name: str) -> float:
    return metrics.scores[name].value


def baselines_of(metrics: Metrics) -> dict[str, float]:
    scores = metrics.scores.items()
    return {name: score.baseline for name, score in scores if score.baseline is not None}


def names(num_classes: int) -> list[str]:
    return [f"class{index}" for index in range(num_classes)]


@pytest.fixture(params=[2, 3, 8, 20])
def measured(request) -> tuple[np.ndarray, np.ndarray, Metrics]:
    labels, probabilities = answers(request.param)
    return labels, probabilities, measure(labels, probabilities, names(request.param))


def test_accuracies_agree_with_scikit_learn(measured):
    labels, probabilities, metrics = measured
    predicted = probabilities.argmax(axis=1)

    assert metrics.images == len(labels)
    assert metrics.accuracy == pytest.approx(reference.accuracy_score(labels, predicted), **CLOSE)
    assert value_of(metrics, "balanced_accuracy") == pytest.approx(
        reference.balanced_accuracy_score(labels, predicted), **CLOSE
    )


def test_scores_of_classes_agree_with_scikit_learn(measured):
    labels, probabilities, metrics = measured
    expected = reference.precision_recall_fscore_support(
        labels, probabilities.argmax(axis=1), labels=range(probabilities.shape[1]), zero_division=0
    )

    found = [(s.precision, s.recall, s.f1, s.support) for s in metrics.per_class]
    np.testing.assert_allclose(found, np.transpose(expected), atol=1e-9)


@pytest.mark.parametrize("average", ["macro", "weighted"])
def test_averages_agree_with_scikit_learn(measured, average):
    labels, probabilities, metrics = measured
    expected = reference.precision_recall_fscore_support(
        labels, probabilities.argmax(axis=1), average=average, zero_division=0
    )

    scores = getattr(metrics, average)
    assert [scores.precision, scores.recall, scores.f1] == pytest.approx(expected[:3], **CLOSE)


def test_confusion_agrees_with_scikit_learn(measured):
    labels, probabilities, metrics = measured
    expected = reference.confusion_matrix(
        labels, probabilities.argmax(axis=1), labels=range(probabilities.shape[1])
    )

    np.testing.assert_array_equal(metrics.confusion, expected)


def test_log_loss_agrees_with_scikit_learn(measured):
    labels, probabilities, metrics = measured
    exact = probabilities.astype(np.float64)
    exact /= exact.sum(axis=1, keepdims=True)
    expected = reference.log_loss(labels, exact, labels=range(exact.shape[1]))

    assert value_of(metrics, "log_loss") == pytest.approx(expected, rel=0, abs=1e-6)


def test_top2_accuracy_agrees_with_scikit_learn(measured):
    labels, probabilities, metrics = measured
    if probabilities.shape[1] == 2:
        assert "top2_accuracy" not in metrics.scores
        assert metrics.to_dict()["top2_accuracy"] is None
    else:
        expected = reference.top_k_accuracy_score(
            labels, probabilities, k=2, labels=range(probabilities.shape[1])
        )
        assert value_of(metrics, "top2_accuracy") == pytest.approx(expected, **CLOSE)


def test_figures_worked_out_by_hand():
    labels = np.array([0, 0, 0, 1, 1, 2])
    probabilities = np.array(
        [
            [0.8, 0.1, 0.1],
            [0.5, 0.4, 0.1],
            [0.3, 0.6, 0.1],
            [0.2, 0.7, 0.1],
            [0.6, 0.1, 0.3],
            [0.7, 0.2, 0.1],
        ]
    )
    metrics = measure(labels, probabilities, ["neutral", "happy", "sad"], "happy")

    assert metrics.confusion == ((2, 1, 0), (1, 1, 0), (1, 0, 0))
    assert metrics.accuracy == pytest.approx(3 / 6)
    assert value_of(metrics, "balanced_accuracy") == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    assert metrics.macro.precision == pytest.approx((2 / 4 + 1 / 2 + 0) / 3)
    assert metrics.macro.f1 == pytest.approx((4 / 7 + 2 / 4 + 0) / 3)
    assert metrics.weighted.f1 == pytest.approx((3 * 4 / 7 + 2 * 2 / 4 + 0) / 6)
    assert value_of(metrics, "top2_accuracy") == pytest.approx(4 / 6)
    assert value_of(metrics, "log_loss") == pytest.approx(
        -sum(np.log([0.8, 0.5, 0.3, 0.7, 0.1, 0.1])) / 6, rel=0, abs=1e-12
    )


def test_baseline_is_the_majority_of_training_not_of_the_images_measured():
    labels, probabilities = answers(4)
    rarest = int(np.bincount(labels, minlength=4).argmin())
    counts = [10, 10, 10, 10]
    counts[rarest] = 11
    metrics = measure(labels, probabilities, names(4), majority_class(names(4), counts))

    constant = np.full_like(labels, rarest)
    assert metrics.majority == f"class{rarest}"
    assert baselines_of(metrics) == {
        "accuracy": pytest.approx(reference.accuracy_score(labels, constant)),
        "balanced_accuracy": pytest.approx(1 / 4),
        "macro_f1": pytest.approx(
            reference.f1_score(labels, constant, average="macro", zero_division=0)
        ),
    }
    assert metrics.to_dict()["baseline"] == {"name": metrics.majority, **baselines_of(metrics)}


def test_equal_training_counts_choose_the_first_class():
    assert majority_class(names(3), [5, 7, 7]) == "class1"


def test_baseline_class_may_have_no_images():
    metrics = measure(np.array([0, 0]), np.array([[0.9, 0.1], [0.2, 0.8]]), ["a", "b"], "b")

    assert baselines_of(metrics) == {"accuracy": 0, "balanced_accuracy": 0, "macro_f1": 0}


def test_class_without_images_counts_in_macro_but_not_in_balanced_accuracy():
    labels = np.array([0, 0, 1, 1])
    probabilities = np.array([[0.8, 0.1, 0.1], [0.1, 0.1, 0.8], [0.1, 0.8, 0.1], [0.1, 0.8, 0.1]])
    metrics = measure(labels, probabilities, ["a", "b", "c"])

    assert [scores.support for scores in metrics.per_class] == [2, 2, 0]
    assert metrics.per_class[2].f1 == 0
    assert value_of(metrics, "balanced_accuracy") == pytest.approx((1 / 2 + 1) / 2)
    assert metrics.macro.recall == pytest.approx(
        reference.recall_score(
            labels, probabilities.argmax(axis=1), labels=range(3), average="macro", zero_division=0
        )
    )
    assert metrics.macro.recall == pytest.approx((1 / 2 + 1 + 0) / 3)


def test_undefined_ratios_are_zero_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metrics = measure(np.array([0]), np.array([[0.1, 0.9, 0.0]]), ["a", "b", "c"], "a")

    assert [scores.f1 for scores in metrics.per_class] == [0, 0, 0]
    assert metrics.accuracy == 0


def test_certain_and_wrong_costs_a_finite_log_loss():
    metrics = measure(np.array([0]), np.array([[0.0, 1.0]]), ["a", "b"])

    assert value_of(metrics, "log_loss") == pytest.approx(-np.log(np.finfo(np.float64).eps))


def test_certain_and_right_costs_nothing():
    metrics = measure(np.array([0]), np.array([[1.0, 0.0]]), ["a", "b"])

    assert f"{value_of(metrics, 'log_loss'):.3f}" == "0.000"


def test_every_image_counts_whatever_the_order():
    labels, probabilities = answers(3, images=97)
    order = np.random.default_rng(0).permutation(97)
    shuffled = measure(labels[order], probabilities[order], names(3))

    assert sum(map(sum, shuffled.confusion)) == 97
    assert shuffled.confusion == measure(labels, probabilities, names(3)).confusion


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int32, np.uint64])
def test_labels_may_be_any_integers(dtype):
    labels, probabilities = answers(20)

    assert measure(labels.astype(dtype), probabilities, names(20)) == measure(
        labels, probabilities, names(20)
    )


def test_dictionary_survives_json(measured):
    labels, probabilities, _ = measured
    num_classes = probabilities.shape[1]
    whole = measure(labels, probabilities, names(num_classes), "class0").to_dict()

    assert json.loads(json.dumps(whole, allow_nan=False)) == whole
    assert whole["images"] == len(labels)
    assert [scores["name"] for scores in whole["per_class"]] == names(num_classes)


@pytest.mark.parametrize(
    ("labels", "probabilities", "message"),
    [
        (np.zeros(0, int), np.zeros((0, 3)), "no images"),
        (np.zeros(2, int), np.full((3, 3), 1 / 3), "shape"),
        (np.zeros(2, int), np.full((2, 2), 1 / 2), "shape"),
        (np.zeros((2, 1), int), np.full((2, 3), 1 / 3), "shape"),
        (np.zeros(2), np.full((2, 3), 1 / 3), "integers"),
        (np.array([0, 3]), np.full((2, 3), 1 / 3), r"0\.\.2"),
        (np.array([0, -1]), np.full((2, 3), 1 / 3), r"0\.\.2"),
        (np.zeros(2, int), np.array([[2.0, -1.0, 0.0]] * 2), "sum to 1"),
        (np.zeros(2, int), np.array([[0.9, 0.9, 0.9]] * 2), "sum to 1"),
    ],
)
def test_what_cannot_be_measured_is_refused(labels, probabilities, message):
    with pytest.raises(ValueError, match=message):
        measure(labels, probabilities, ["a", "b", "c"])


def test_training_counts_must_fit_the_classes():
    with pytest.raises(ValueError, match="training counts of 3 classes"):
        majority_class(["a", "b", "c"], [1, 2])


def test_a_diverged_model_is_told_to_the_user():
    probabilities = np.array([[0.5, 0.5], [np.nan, np.nan]])

    with pytest.raises(UserError, match=r"1 of 2 images.*diverged.*--learning-rate"):
        measure(np.zeros(2, int), probabilities, ["a", "b"])
