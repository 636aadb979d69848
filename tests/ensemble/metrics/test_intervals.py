"""Intervals cover as often as they say, and paired tests agree with SciPy and with hand."""

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as reference

from ensemble.metrics.intervals import (
    NO_GAIN,
    compare,
    mcnemar_test,
    score_intervals,
    wilson_interval,
)


def confusion_of(labels: np.ndarray, answers: np.ndarray, num_classes: int) -> np.ndarray:
    return reference.confusion_matrix(labels, answers, labels=range(num_classes))


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
        held += score_intervals(matrix, resamples=1000).balanced_accuracy.holds(0.7)

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
    for seed in range(400):
        right = random.binomial(400, 0.7)
        matrix = np.array([[right, 400 - right], [0, 0]])
        held += score_intervals(matrix, resamples=1000, seed=seed).accuracy.holds(0.7)

    assert 0.92 <= held / 400 <= 0.98


def test_the_same_seed_gives_the_same_interval_and_memory_does_not_change_it(monkeypatch):
    matrix = confusion_of(*draw(200, 0.6, seed=3), 3)
    found = score_intervals(matrix, seed=7)

    assert found == score_intervals(matrix, seed=7)
    assert found != score_intervals(matrix, seed=8)
    monkeypatch.setattr("ensemble.metrics.intervals._BLOCK", 100)
    assert found == score_intervals(matrix, seed=7)


def test_a_class_that_is_neither_there_nor_answered_has_f1_zero():
    found = score_intervals([[5, 5, 0], [2, 8, 0], [0, 0, 0]])

    assert (found.class_f1[2].low, found.class_f1[2].high) == (0, 0)
    assert found.balanced_accuracy.high > found.macro_f1.high


@pytest.mark.parametrize(("confusion", "resamples"), [([[0, 0], [0, 0]], 2000), ([[1]], 999)])
def test_nothing_and_too_few_resamples_are_refused(confusion, resamples):
    with pytest.raises(ValueError, match=r"no images|1,000 resamples"):
        score_intervals(confusion, resamples=resamples)


def test_differences_are_those_of_scikit_learn_and_of_a_paired_bootstrap():
    labels, first = draw(300, 0.6, seed=4)
    random = np.random.default_rng(9)
    second = np.where(random.random(300) < 0.25, labels, first)
    found = compare(labels, first, second)

    def gains(truth, answers):
        def scores(column):
            return [
                reference.accuracy_score(truth, answers[:, column]),
                reference.recall_score(truth, answers[:, column], average="macro"),
                reference.f1_score(truth, answers[:, column], average="macro"),
            ]

        return np.subtract(scores(1), scores(0))

    answers = np.stack([first, second], axis=1)
    differences = [found.accuracy, found.balanced_accuracy, found.macro_f1]
    assert [d.value for d in differences] == pytest.approx(gains(labels, answers).tolist())
    expected = np.quantile(resampled(labels, answers, gains), [0.025, 0.975], axis=0).T
    found_ends = [(d.interval.low, d.interval.high) for d in differences]
    np.testing.assert_allclose(found_ends, expected, atol=0.01)


def test_pairing_narrows_the_interval():
    labels, first = draw(500, 0.6, seed=6)
    second = first.copy()
    second[:10] = labels[:10]
    paired = compare(labels, first, second).accuracy.interval
    alone = score_intervals(confusion_of(labels, first, 3)).accuracy

    assert paired.high - paired.low < (alone.high - alone.low) / 3


def test_a_gain_is_proven_only_if_the_interval_leaves_out_zero():
    labels = np.zeros(200, int)
    half, most = np.ones(200, int), np.ones(200, int)
    half[:100], most[60:] = 0, 0  # 100 and 140 right

    assert compare(labels, half, half).accuracy.verdict == NO_GAIN
    assert compare(labels, half, most).accuracy.verdict == "better"
    assert compare(labels, most, half).accuracy.verdict == "worse"
    assert compare(labels, half, most).verdict.startswith("better: +20.00 points (+")


def test_a_small_gain_may_be_chance():
    labels = np.zeros(100, int)
    first, second = labels.copy(), labels.copy()
    first[:5], second[5:9] = 1, 1
    assert compare(labels, first, second).verdict.startswith("no proven gain: +1.00 points (-")


@pytest.mark.parametrize(("only_first", "only_second"), [(0, 0), (3, 9), (9, 3), (12, 12), (0, 24)])
def test_few_discordant_images_are_tested_exactly(only_first, only_second):
    test = mcnemar_test(only_first, only_second)
    discordant = only_first + only_second

    assert test.method == "exact"
    expected = stats.binomtest(only_first, discordant).pvalue if discordant else 1
    assert test.p_value == pytest.approx(expected)


@pytest.mark.parametrize(("only_first", "only_second"), [(10, 15), (40, 20), (20, 40), (30, 30)])
def test_mid_p_counts_half_of_what_was_seen(only_first, only_second):
    test = mcnemar_test(only_first, only_second)
    n, smaller = only_first + only_second, min(only_first, only_second)
    below = sum(stats.binom.pmf(k, n, 0.5) for k in range(smaller))
    above = sum(stats.binom.pmf(k, n, 0.5) for k in range(n - smaller + 1, n + 1))
    ends = {smaller, n - smaller}
    expected = below + above + sum(stats.binom.pmf(k, n, 0.5) for k in ends) / 2

    assert test.method == "mid-p"
    assert test.p_value == pytest.approx(expected)


def test_mcnemar_counts_the_images_that_one_model_alone_answers():
    labels = np.array([0, 0, 0, 1, 1, 2])
    first = np.array([0, 0, 1, 1, 0, 0])
    second = np.array([0, 1, 1, 1, 1, 2])

    test = compare(labels, first, second).mcnemar
    assert (test.only_first, test.only_second) == (1, 2)


def test_a_comparison_becomes_plain_values():
    labels, first = draw(50, 0.5, seed=1)
    content = compare(labels, first, labels).to_dict()

    assert content["images"] == 50
    assert content["accuracy"]["interval"].keys() == {"low", "high"}
    assert content["verdict"].startswith("better")


@pytest.mark.parametrize("shape", [(0,), (3, 2)])
def test_rows_that_cannot_be_compared_are_refused(shape):
    rows = np.zeros(shape, int)
    with pytest.raises(ValueError, match="three rows"):
        compare(rows, rows, rows)
