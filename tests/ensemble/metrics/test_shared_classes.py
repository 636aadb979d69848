"""Laws of evaluating a model on some of its classes."""

import numpy as np

from ensemble.metrics.shared_classes import describe_restriction, restrict

CLASSES = ("anger", "contempt", "happiness", "neutral")
SHARED = ("neutral", "anger")
PROBABILITIES = np.array(
    [[0.1, 0.5, 0.1, 0.3], [0.6, 0.2, 0.1, 0.1], [0.0, 0.0, 1.0, 0.0], [0.2, 0.1, 0.1, 0.6]],
    np.float32,
)


def test_probabilities_are_those_given_that_the_class_is_shared():
    np.testing.assert_allclose(
        restrict(PROBABILITIES, CLASSES, SHARED),
        [[0.75, 0.25], [1 / 7, 6 / 7], [0.5, 0.5], [0.75, 0.25]],
        rtol=1e-6,
    )


def test_sharing_all_classes_changes_nothing():
    np.testing.assert_allclose(restrict(PROBABILITIES, CLASSES, CLASSES), PROBABILITIES, atol=1e-7)


def test_predictions_over_all_classes_are_described_too():
    told = describe_restriction(PROBABILITIES, np.array([0, 1, 0, 0]), CLASSES, SHARED)

    assert "over 2 shared classes of 4" in told
    assert "predicts contempt, happiness for 50.00% of these images" in told
    assert "its accuracy is 50.00%" in told
