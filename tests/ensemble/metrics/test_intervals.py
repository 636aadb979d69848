"""Intervals cover as often as they claim, and agree with SciPy and a bootstrap by indices."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as reference

from ensemble.metrics.intervals import (
    bootstrap_interval,
    f1_intervals,
    recall_intervals,
    wilson_interval,
)
from ensemble.metrics.metrics import balanced_accuracy_interval, macro_f1, macro_f1_interval


def confusion_of(labels: np.ndarray, answers: np.ndarray, num_classes: int) -> np.ndarray:
    return reference.confusion_matrix(labels, answers, labels=range(num_classes))


def score_intervals(confusion: np.ndarray | list[list[int]]) -> SimpleNamespace:
    """All intervals of a confusion matrix."""
    confusion = np.asarray(confusion)
    return SimpleNamespace(
        accuracy=wilson_interval(confusion.trace(), confusion.sum()),
        balanced_accuracy=balanced_accuracy_interval(confusion),
        macro_f1=macro_f1_interval(confusion),
        class_f1=f1_intervals(confusion),
        class_recall=recall_intervals(confusion),
    )


def draw(images: int, right: float, seed: int, num_classes: int = 3) -> tuple[np.ndarray, ...]:
    """Labels, and answers that are right with a given probability."""
    random = np.random.default_rng(seed)
    labels = random.integers(num_classes, size=images)
    wrong = (labels + random.integers(1, num_classes, size=images)) % num_classes
    return labels, np.where(random.random(images) < right, labels, wrong)


def resampled(labels: np.ndarray, answers: np.ndarray, score, resamples: int = 1500) -> list:
    """A bootstrap by indices, with scikit-learn's own figures."""
    random = np.random.default_rng(5)
    picks = random.integers(len(labels), size=(resamples, len(labels)))
    return [score(labels[pick], answers[pick]) for pick in picks]


def test_intervals_are_those_of_a_bootstrap_by_indices():
    labels, answers = draw(300, 0.7, seed=1)
    found = score_intervals(confusion_of(labels, answers, 3))

    def rates(truth, answer):
        f1 = reference.f1_score(truth, answer, labels=range(3), average=None, zero_division=0)
        recall = reference.recall_score(truth, answer, labels=range(3), average="macro")
        return [np.mean(truth == answer), recall, f1.mean(), *f1]

    expected = np.quantile(resampled(labels, answers, rates), [0.025, 0.975], axis=0).T
    intervals = [found.accuracy, found.balanced_accuracy, found.macro_f1, *found.class_f1]
    np.testing.assert_allclose([(i.low, i.high) for i in intervals], expected, atol=0.012)


@pytest.mark.parametrize(
    ("hits", "images"), [(0, 7), (7, 7), (0, 10), (10, 10), (1, 10), (0, 1), (381, 500)]
)
def test_a_proportion_has_wilsons_interval(hits, images):
    expected = stats.binomtest(hits, images).proportion_ci(method="wilson")

    found = wilson_interval(hits, images)
    assert (found.low, found.high) == pytest.approx(tuple(expected), abs=1e-12)


@pytest.mark.parametrize("right", [0, 10])
def test_intervals_keep_their_width_where_no_or_every_answer_is_right(right):
    found = score_intervals([[right, 10 - right], [10 - right, right]])

    edges = [
        found.accuracy,
        found.balanced_accuracy,
        found.macro_f1,
        *found.class_f1,
        *found.class_recall,
    ]
    for interval in edges:
        assert interval.holds(right / 10)
        assert interval.high - interval.low > 0.1
    ends = stats.binomtest(right, 10).proportion_ci(method="wilson")
    assert (found.class_recall[0].low, found.class_recall[0].high) == pytest.approx(tuple(ends))


def test_the_interval_of_balanced_accuracy_covers_as_often_as_that_of_accuracy():
    random = np.random.default_rng(3)
    held = 0
    for _ in range(400):
        hits = random.binomial([40, 15], [0.9, 0.5])
        matrix = [[hits[0], 40 - hits[0]], [15 - hits[1], hits[1]]]
        held += balanced_accuracy_interval(np.array(matrix)).holds(0.7)

    assert 0.92 <= held / 400 <= 0.98


def test_the_recall_of_a_class_without_images_is_not_known():
    found = score_intervals([[5, 5], [0, 0]])

    assert (found.class_recall[1].low, found.class_recall[1].high) == pytest.approx((0, 1))


def test_the_interval_of_accuracy_is_that_of_the_binomial():
    confusion = np.array([[640, 160], [80, 120]])  # 760 of 1,000
    found = score_intervals(confusion).accuracy

    expected = stats.binom.ppf([0.025, 0.975], 1000, 0.76) / 1000
    assert [found.low, found.high] == pytest.approx(expected.tolist(), abs=0.003)


def test_the_true_accuracy_is_within_95_of_100_intervals():
    random = np.random.default_rng(2)
    held = 0
    for _ in range(400):
        held += wilson_interval(random.binomial(400, 0.7), 400).holds(0.7)

    assert 0.92 <= held / 400 <= 0.98


def test_the_same_seed_gives_the_same_interval_and_memory_does_not_change_it(monkeypatch):
    matrix = confusion_of(*draw(200, 0.6, seed=3), 3)
    found = bootstrap_interval(macro_f1, matrix, seed=7)

    assert found == bootstrap_interval(macro_f1, matrix, seed=7)
    assert found != bootstrap_interval(macro_f1, matrix, seed=8)
    monkeypatch.setattr("ensemble.metrics.intervals._BLOCK", 100)
    assert found == bootstrap_interval(macro_f1, matrix, seed=7)


def test_a_class_that_is_neither_there_nor_answered_has_f1_zero():
    found = score_intervals([[5, 5, 0], [2, 8, 0], [0, 0, 0]])

    assert (found.class_f1[2].low, found.class_f1[2].high) == (0, 0)
    assert found.balanced_accuracy.high > found.macro_f1.high


@pytest.mark.parametrize(("confusion", "resamples"), [([[0, 0], [0, 0]], 2000), ([[1]], 999)])
def test_nothing_and_too_few_resamples_are_refused(confusion, resamples):
    with pytest.raises(ValueError, match=r"no images|1,000 resamples"):
        bootstrap_interval(macro_f1, np.array(confusion), resamples=resamples)


def test_an_interval_is_shown_in_brackets():
    interval = wilson_interval(381, 500)

    assert f"{interval:.1%}" == "[72.3, 79.7]"
    assert f"{interval:.3f}" == "[0.723, 0.797]"
