"""A model's answers where the data has some of its classes only.

Images of other classes are left out, so it is known of each image that its class is a
shared one. By the rule of Bayes the model's answer, given that, is its probabilities of the
shared classes, scaled to sum to 1. Answers over all classes would blame the model for
considering what the choice of images has ruled out; how often it does is told beside.
"""

from collections.abc import Sequence

import numpy as np


def restrict(
    probabilities: np.ndarray, classes: Sequence[str], shared: Sequence[str]
) -> np.ndarray:
    """Returns probabilities given that the class is a shared one, shape `(n, len(shared))`.

    Args:
        probabilities: Over all classes, shape `(n, len(classes))`.
        classes: Of the model.
        shared: Some of them, in the order of the columns that are returned.
    """
    # The smallest float keeps a row whose shared classes have none at all a probability.
    kept = probabilities[:, _places(classes, shared)].astype(float) + np.finfo(np.float32).tiny
    return kept / kept.sum(axis=1, keepdims=True)


def describe_restriction(
    probabilities: np.ndarray, labels: np.ndarray, classes: Sequence[str], shared: Sequence[str]
) -> str:
    """Returns a line for reports: what was judged, and what answers over all classes come to.

    Args:
        probabilities: Over all classes, shape `(n, len(classes))`.
        labels: Places in `shared`, shape `(n,)`.
        classes: Of the model.
        shared: Those that the data has too.
    """
    places = np.array(_places(classes, shared))
    answers = probabilities.argmax(axis=1)
    elsewhere = np.mean(~np.isin(answers, places))
    accuracy = np.mean(answers == places[labels])
    others = [name for name in classes if name not in shared]
    return (
        f"figures are over {len(shared)} shared classes of {len(classes)}, with the model's "
        f"probabilities of these scaled to sum to 1; over all its classes it answers "
        f"{', '.join(others) or 'another one'} to {elsewhere:.2%} of these images, and is right "
        f"on {accuracy:.2%}"
    )


def _places(classes: Sequence[str], shared: Sequence[str]) -> list[int]:
    return [list(classes).index(name) for name in shared]
