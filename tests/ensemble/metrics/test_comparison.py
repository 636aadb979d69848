"""Paired differences and tests agree with SciPy, a bootstrap by indices and by hand."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as reference

from ensemble.metrics.comparison import NOT_BETTER, compare, mcnemar_test
from ensemble.metrics.intervals import wilson_interval


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
    differences = [found.differences[m] for m in ("accuracy", "balanced_accuracy", "macro_f1")]
    assert [d.value for d in differences] == pytest.approx(gains(labels, answers).tolist())
    expected = np.quantile(resampled(labels, answers, gains), [0.025, 0.975], axis=0).T
    found_ends = [(d.interval.low, d.interval.high) for d in differences]
    np.testing.assert_allclose(found_ends, expected, atol=0.01)


def test_pairing_narrows_the_interval():
    labels, first = draw(500, 0.6, seed=6)
    second = first.copy()
    second[:10] = labels[:10]
    paired = compare(labels, first, second).accuracy.interval
    alone = wilson_interval(np.sum(labels == first), 500)

    assert paired.high - paired.low < (alone.high - alone.low) / 3


def test_a_gain_is_significant_only_if_the_interval_leaves_out_zero():
    labels = np.zeros(200, int)
    half, most = np.ones(200, int), np.ones(200, int)
    half[:100], most[60:] = 0, 0  # 100 and 140 right

    assert compare(labels, half, half).accuracy.conclusion == NOT_BETTER
    assert compare(labels, half, most).accuracy.conclusion == "better"
    assert compare(labels, most, half).accuracy.conclusion == "worse"
    assert str(compare(labels, half, most)).startswith("better: +20.00 [+")


def test_a_small_gain_may_be_chance():
    labels = np.zeros(100, int)
    first, second = labels.copy(), labels.copy()
    first[:5], second[5:9] = 1, 1
    assert str(compare(labels, first, second)).startswith("not significantly better: +1.00 [-")


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
    content = asdict(compare(labels, first, labels))

    assert json.loads(json.dumps(content)) == content
    assert content["images"] == 50
    assert content["differences"]["accuracy"]["interval"].keys() == {"low", "high"}


@pytest.mark.parametrize("shape", [(0,), (3, 2)])
def test_rows_that_cannot_be_compared_are_refused(shape):
    rows = np.zeros(shape, int)
    with pytest.raises(ValueError, match="three rows"):
        compare(rows, rows, rows)
