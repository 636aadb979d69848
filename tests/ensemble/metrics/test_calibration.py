"""Calibration is what its formulas say, and a temperature moves confidences alone."""

import inspect
import json

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import brier_score_loss, log_loss

from ensemble.metrics.calibration import (
    BINS,
    HIGHEST,
    LOWEST,
    apply_temperature,
    calibrate,
    calibration_error,
    fit_temperature,
    measure_calibration,
    reliability_bins,
    risk_coverage,
    score_probabilities,
)


def make_answers(
    scale: float = 1.0, images: int = 3000, num_classes: int = 5
) -> tuple[np.ndarray, np.ndarray]:
    """Returns labels drawn from probabilities, and what a model too sure by `scale` says."""
    random = np.random.default_rng(3)
    logits = random.normal(size=(images, num_classes)) * 1.5
    draws = (softmax(logits, axis=1).cumsum(axis=1) < random.random((images, 1))).sum(axis=1)
    return np.minimum(draws, num_classes - 1), softmax(logits * scale, axis=1)


def test_likelihood_and_brier_score_are_scikit_learns():
    labels, probabilities = make_answers(2.0)
    probabilities[:3] = np.eye(5)[[0, 1, 2]]  # sure, and mostly wrong

    scores = score_probabilities(labels, probabilities)

    assert scores.nll == pytest.approx(log_loss(labels, probabilities), abs=1e-6)
    by_hand = ((probabilities - np.eye(5)[labels]) ** 2).sum() / len(labels)
    assert scores.brier == pytest.approx(by_hand, abs=1e-6)
    if "scale_by_half" in inspect.signature(brier_score_loss).parameters:
        expected = brier_score_loss(labels, probabilities, scale_by_half=False)
        assert scores.brier == pytest.approx(expected, abs=1e-6)


def test_calibration_error_is_that_of_a_hand_computation():
    confidences = np.array([0.95, 0.97, 0.99, 0.62, 0.64, 0.55])
    probabilities = np.stack([confidences, 1 - confidences], axis=1)
    labels = np.array([0, 0, 1, 0, 1, 1])

    bins = reliability_bins(labels, probabilities)

    # Bins of 1/15: above 14/15 lie three, of them two right; 9/15 to 10/15 two, one right;
    # 8/15 to 9/15 one, wrong.
    assert [(place, found.images) for place, found in enumerate(bins) if found.images] == [
        (8, 1),
        (9, 2),
        (14, 3),
    ]
    assert bins[14].accuracy == pytest.approx(2 / 3, abs=1e-6)
    assert bins[14].confidence == pytest.approx(0.97, abs=1e-6)
    assert (bins[0].accuracy, bins[0].confidence) == (None, None)
    expected = (3 * abs(2 / 3 - 0.97) + 2 * abs(0.5 - 0.63) + 1 * 0.55) / 6
    assert calibration_error(bins) == pytest.approx(expected, abs=1e-6)


def test_a_bin_holds_its_upper_edge():
    confidences = np.linspace(0, 1, BINS + 1)[8:]
    probabilities = np.stack([confidences, 1 - confidences], axis=1)

    bins = reliability_bins(np.zeros(len(confidences), int), probabilities)

    assert [found.images for found in bins] == [0] * 7 + [1] * 8
    assert (bins[0].lower, bins[-1].upper) == (0, 1)


def test_the_temperature_makes_the_labels_most_probable():
    labels, probabilities = make_answers(2.3)

    temperature = fit_temperature(labels, probabilities)

    losses = [
        log_loss(labels, apply_temperature(probabilities, temperature * factor))
        for factor in (0.999, 1, 1.001)
    ]
    assert losses[1] < min(losses[0], losses[2])
    assert temperature == pytest.approx(2.3, rel=0.05)


@pytest.mark.parametrize("scale", [0.4, 3.0])
def test_the_temperature_follows_the_scale_of_the_logits(scale):
    labels, probabilities = make_answers()
    _, scaled = make_answers(scale)

    assert fit_temperature(labels, scaled) == pytest.approx(
        scale * fit_temperature(labels, probabilities), rel=1e-4
    )


def test_a_temperature_changes_no_answer_and_can_be_undone():
    _, probabilities = make_answers(2.0)

    for temperature in (LOWEST, 0.5, 1.0, 1.7, HIGHEST):
        changed = apply_temperature(probabilities, temperature)
        np.testing.assert_array_equal(changed.argmax(axis=1), probabilities.argmax(axis=1))
        np.testing.assert_allclose(changed.sum(axis=1), 1, atol=1e-12)
    undone = apply_temperature(apply_temperature(probabilities, 1.7), 1 / 1.7)
    np.testing.assert_allclose(undone, probabilities, atol=1e-12)
    assert apply_temperature(probabilities.astype("float32"), 1.7).dtype == np.float32


def test_answers_without_a_mistake_or_without_a_number_keep_their_temperature():
    labels, probabilities = make_answers()
    diverged = np.full_like(probabilities, np.nan)

    assert fit_temperature(probabilities.argmax(axis=1), probabilities) == 1
    assert fit_temperature(labels, diverged) == 1
    assert fit_temperature(np.array([1]), np.array([[0.3, 0.7]])) == 1
    assert calibrate(labels, probabilities, fit=False)[0] == 1


def test_a_hopeless_model_gets_the_highest_temperature():
    sure = np.eye(3)[[0, 0, 1, 1] * 3]

    temperature, answers = calibrate(np.array([1, 2, 2, 0] * 3), sure)

    assert temperature == pytest.approx(HIGHEST, rel=1e-3)
    assert np.isfinite(answers).all()


def test_few_mistakes_say_nothing_of_a_temperature():
    probabilities = np.full((100, 2), (0.51, 0.49))
    labels = np.zeros(100, int)
    labels[:9] = 1

    assert fit_temperature(labels, probabilities) == 1
    labels[9] = 1
    assert fit_temperature(labels, probabilities) < 0.1


def test_risks_are_those_of_a_hand_computation():
    confidences = np.array([0.9, 0.6, 0.8, 0.6, 0.7])
    probabilities = np.stack([confidences, 1 - confidences], axis=1)
    labels = np.array([0, 1, 1, 0, 0])  # wrong: the second and the third

    risks = risk_coverage(labels, probabilities)

    # 0.9 right, 0.8 wrong, 0.7 right, then two of 0.6 which share one mistake.
    expected = [0, 1 / 2, 1 / 3, 1.5 / 4, 2 / 5]
    np.testing.assert_allclose(risks, expected, atol=1e-12)
    order = np.array([4, 3, 2, 1, 0])
    np.testing.assert_allclose(risk_coverage(labels[order], probabilities[order]), expected)
    calibration = measure_calibration(labels, probabilities)
    assert calibration.aurc == pytest.approx(sum(expected) / 5, abs=1e-6)


def test_before_and_after_are_told_apart():
    labels, before = make_answers(2.3)
    temperature, after = calibrate(labels, before)

    found = measure_calibration(labels, after, temperature, same_images=True)
    record = json.loads(json.dumps(found.to_dict(), allow_nan=False))

    expected = score_probabilities(labels, before)
    for name in ("ece", "nll", "brier"):
        assert record["before"][name] == pytest.approx(getattr(expected, name), abs=1e-6)
        assert record["after"][name] < record["before"][name]
    assert record["after"]["nll"] == pytest.approx(log_loss(labels, after), abs=1e-6)
    assert record["after"]["ece"] < 0.4 * record["before"]["ece"]
    assert (record["temperature"], record["fitted_on"]) == (temperature, "validation")
    assert record["same_images"]
    for name in ("bins", "bins_before"):
        assert len(record[name]) == BINS
        assert sum(found["images"] for found in record[name]) == len(labels)


def test_a_model_without_temperature_says_so():
    labels, probabilities = make_answers()

    record = measure_calibration(labels, probabilities, same_images=True).to_dict()

    assert (record["temperature"], record["fitted_on"], record["same_images"]) == (1, None, False)
    assert record["before"]["ece"] == pytest.approx(record["after"]["ece"], abs=1e-9)
