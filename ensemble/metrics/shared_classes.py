"""Evaluation on data that has only some of a model's classes.

Images of other classes are left out, so every image is known to be of a shared class. By Bayes'
rule the model's prediction, given that, is its probabilities of the shared classes, scaled to sum
to 1.
"""

from collections.abc import Sequence

import numpy as np


def restrict(
    probabilities: np.ndarray, classes: Sequence[str], shared: Sequence[str]
) -> np.ndarray:
    """Returns probabilities given that the class is a shared one, shape `(n, len(shared))`."""
    # The smallest float keeps the probabilities of a row whose shared classes all have 0.
    kept = probabilities[:, _places(classes, shared)].astype(float) + np.finfo(np.float32).tiny
    return kept / kept.sum(axis=1, keepdims=True)


def describe_restriction(
    probabilities: np.ndarray, labels: np.ndarray, classes: Sequence[str], shared: Sequence[str]
) -> str:
    """Returns a line for reports, with the accuracy over all classes; labels index `shared`."""
    places = np.array(_places(classes, shared))
    predicted = probabilities.argmax(axis=1)
    elsewhere = np.mean(~np.isin(predicted, places))
    accuracy = np.mean(predicted == places[labels])
    others = [name for name in classes if name not in shared]
    return (
        f"metrics are over {len(shared)} shared classes of {len(classes)}, with the model's "
        f"probabilities of these scaled to sum to 1; over all its classes it predicts "
        f"{', '.join(others) or 'another one'} for {elsewhere:.2%} of these images, and its "
        f"accuracy is {accuracy:.2%}"
    )


def _places(classes: Sequence[str], shared: Sequence[str]) -> list[int]:
    return [list(classes).index(name) for name in shared]
