"""Metrics of groups of images, such as age bands, and the largest gaps between groups.

Means hide for whom a model fails (Buolamwini and Gebru, Gender Shades, FAT* 2018).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from ensemble.metrics.comparison import Difference
from ensemble.metrics.intervals import (
    SEED,
    Interval,
    bootstrap,
    central_interval,
    wilson_interval,
)
from ensemble.metrics.metrics import accuracy, f1_scores

FEW_IMAGES = 30  # of a class or a group; reports warn of fewer


@dataclass(frozen=True, slots=True)
class GroupScores:
    """Metrics of one group of images; its macro-F1 is over the classes of which it has images."""

    name: str
    images: int
    accuracy: float
    accuracy_interval: Interval
    macro_f1: float
    macro_f1_interval: Interval


@dataclass(frozen=True, slots=True)
class Gap:
    """Metric of the best group minus that of the worst; the two are resampled separately."""

    best: str
    worst: str
    difference: Difference


@dataclass(frozen=True, slots=True)
class GroupReport:
    """Metrics of all groups, by name.

    Args:
        column: Column that names the group of an image.
        groups: Metrics of each group.
        ungrouped: Number of images without a known group.
        accuracy_gap: Largest gap between groups of 30 images or more; None without two of these.
        macro_f1_gap: Likewise.
    """

    column: str
    groups: tuple[GroupScores, ...]
    ungrouped: int
    accuracy_gap: Gap | None
    macro_f1_gap: Gap | None

    @property
    def small(self) -> list[GroupScores]:
        """The groups of fewer than 30 images."""
        return [group for group in self.groups if group.images < FEW_IMAGES]

    def describe_gaps(self) -> str:
        """Returns the largest gaps in a few sentences."""
        points, f1 = self.accuracy_gap, self.macro_f1_gap
        if points is None or f1 is None:
            return f"No gap is reported: fewer than two groups have {FEW_IMAGES} images."
        return (
            f"The largest gap in accuracy between groups of {FEW_IMAGES} images or more is "
            f"{100 * points.difference.value:.1f} points {points.difference.interval:.1%}, "
            f"{points.best} over {points.worst}; in macro-F1 {f1.difference.value:.3f} "
            f"{f1.difference.interval:.3f}, {f1.best} over {f1.worst}. Two groups selected for "
            "their distance look further apart than they are, the more so the more groups exist."
        )


def measure_groups(
    column: str,
    members: Sequence[str],
    labels: np.ndarray,
    predicted: np.ndarray,
    num_classes: int,
) -> GroupReport:
    """Measures each group of images.

    Args:
        column: Column that names the group of an image.
        members: The group of each of the `n` images; "" where it is not known.
        labels: True classes as indices, shape `(n,)`.
        predicted: Predicted classes, likewise.
        num_classes: Number of classes.

    Raises:
        ValueError: If no image has a group.
    """
    counts = Counter(members)
    ungrouped = counts.pop("", 0)
    if not counts:
        raise ValueError("No image has a group.")
    given, groups = np.array(members), []
    resampled: dict[str, np.ndarray] = {}
    for number, name in enumerate(sorted(counts)):
        rows = given == name
        confusion = np.zeros((num_classes, num_classes), np.int64)
        np.add.at(confusion, (labels[rows], predicted[rows]), 1)
        scores = partial(_scores, present=confusion.sum(axis=1) > 0)
        resampled[name] = bootstrap(scores, confusion, seed=[SEED, number])
        share, f1 = scores(confusion).tolist()
        wilson = wilson_interval(confusion.trace(), counts[name])
        f1_interval = central_interval(resampled[name][:, 1])
        groups.append(GroupScores(name, counts[name], share, wilson, f1, f1_interval))
    large = [group for group in groups if group.images >= FEW_IMAGES]
    gaps = [
        _gap({group.name: getattr(group, metric) for group in large}, resampled, place)
        for place, metric in enumerate(("accuracy", "macro_f1"))
    ]
    return GroupReport(column, tuple(groups), ungrouped, *gaps)


def _scores(confusions: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Returns accuracy and the macro-F1 of the classes that are present, shape `(..., 2)`."""
    f1 = f1_scores(confusions)[..., present].mean(axis=-1)
    return np.stack([accuracy(confusions), f1], axis=-1)


def _gap(values: dict[str, float], resampled: dict[str, np.ndarray], place: int) -> Gap | None:
    if len(values) < 2:
        return None
    best, worst = max(values, key=values.__getitem__), min(values, key=values.__getitem__)
    interval = central_interval(resampled[best][:, place] - resampled[worst][:, place])
    return Gap(best, worst, Difference(values[best] - values[worst], interval))
