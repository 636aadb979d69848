"""Targets of a training and the weights of its images.

A target is a probability for each class, so that a label, the votes of a crowd
and a mixture of two images are one kind of thing.
"""

from typing import Literal

import numpy as np

from configs.errors import DataError
from ensemble.data.loading import Split

TargetKind = Literal["label", "distribution", "drawn"]


def one_hot(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Returns certainty: 1 for the label's class, float32, shape `(images, num_classes)`."""
    return np.eye(num_classes, dtype="float32")[labels]


def make_targets(split: Split, num_classes: int, kind: TargetKind) -> np.ndarray:
    """Returns the targets of a split's images.

    Args:
        split: The images.
        num_classes: Number of classes.
        kind: "label", or the vote distribution (Barsoum et al., ICMI 2016,
            arXiv:1608.01041) for "distribution" and "drawn"; with "drawn" a class is
            sampled from it in each epoch, see `sample_classes`.

    Returns:
        Float32, shape `(images, num_classes)`; each row sums to 1.

    Raises:
        DataError: If votes are wanted and the data has none.
    """
    if kind == "label":
        return one_hot(split.labels, num_classes)
    if split.votes is None:
        raise DataError(
            f"Targets {kind!r} need the votes of several people on each image, which this data "
            "does not have. Use --targets label, or FER+ with --labels fer2013new.csv."
        )
    return split.votes / split.votes.sum(axis=1, keepdims=True)


def sample_classes(targets: np.ndarray, *, seed: int, epoch: int) -> np.ndarray:
    """Returns targets certain of a class sampled from each target, of the same shape.

    They depend only on the targets, the seed and the epoch.
    """
    points = np.random.default_rng([seed, epoch, 1]).random((len(targets), 1))
    classes = (targets.cumsum(axis=1) < points * targets.sum(axis=1, keepdims=True)).sum(axis=1)
    return one_hot(classes, targets.shape[1])


def smooth(targets: np.ndarray, share: float) -> np.ndarray:
    """Spreads a share of each target evenly over all classes.

    Label smoothing of Szegedy et al., CVPR 2016, arXiv:1512.00567.

    Args:
        targets: Shape `(images, num_classes)`.
        share: From 0 to below 1.
    """
    return targets * np.float32(1 - share) + np.float32(share / targets.shape[1])


def balance(targets: np.ndarray) -> np.ndarray:
    """Returns the weight of each image that balances the classes.

    A class weighs the inverse of its share, so that the mean over all images
    is 1: `n / (classes * images of the class)`, as scikit-learn's "balanced" does.
    A target of several classes weighs their mean.

    Args:
        targets: Shape `(images, num_classes)`.

    Returns:
        Float32, shape `(images,)`.
    """
    images = np.maximum(targets.sum(axis=0), 1e-9)  # a class may have no images
    return (targets @ (len(targets) / (targets.shape[1] * images))).astype("float32")
