"""Figures of groups of images, such as age bands, and how far apart they lie.

Mean figures hide whom a model fails (Buolamwini and Gebru, Gender Shades, FAT* 2018).
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ensemble.metrics.intervals import (
    SEED,
    Difference,
    Interval,
    interval_of,
    resample_scores,
    wilson_interval,
)

FEW_IMAGES = 30  # of a class or a group; with fewer, its figures are warned of


@dataclass(frozen=True, slots=True)
class GroupScores:
    """How well a classifier does on one group of images.

    Args:
        name: The group.
        images: How many it has.
        accuracy: Share of them answered correctly.
        accuracy_interval: 95 % interval of that.
        macro_f1: Mean F1 over the classes of which the group has images, so that
            groups are not told apart by the classes that they lack.
        macro_f1_interval: 95 % interval of that.
    """

    name: str
    images: int
    accuracy: float
    accuracy_interval: Interval
    macro_f1: float
    macro_f1_interval: Interval


@dataclass(frozen=True, slots=True)
class Gap:
    """The figure of the best group minus that of the worst.

    The interval is that of these two groups, which are resampled apart. As they were
    picked for their distance, it flatters the gap somewhat, the more so the more groups
    there are.
    """

    best: str
    worst: str
    difference: Difference


@dataclass(frozen=True, slots=True)
class GroupReport:
    """Figures of all groups.

    Args:
        column: What the images are grouped by.
        groups: By name, in order.
        ungrouped: Images of which the group is not known, which are in no group.
        accuracy_gap: The largest one between groups of 30 images or more; None where
            there are not two of those.
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


def measure_groups(
    column: str,
    members: Sequence[str],
    labels: np.ndarray,
    predicted: np.ndarray,
    num_classes: int,
) -> GroupReport:
    """Measures each group of images.

    Args:
        column: What the images are grouped by.
        members: The group of each of the `n` images; "" where it is not known.
        labels: True classes as indices, shape `(n,)`.
        predicted: Answers, likewise.
        num_classes: Number of classes.

    Raises:
        ValueError: If no image has a group.
    """
    counts = Counter(members)
    ungrouped = counts.pop("", 0)
    if not counts:
        raise ValueError("No image has a group.")
    names, given = sorted(counts), np.array(members)
    scores, accuracy, macro_f1 = [], {}, {}
    for number, name in enumerate(names):
        rows = given == name
        confusion = np.zeros((num_classes, num_classes), np.int64)
        np.add.at(confusion, (labels[rows], predicted[rows]), 1)
        accuracy[name], macro_f1[name] = _draw(confusion, number)
        point, f1 = _point(confusion)
        scores.append(
            GroupScores(
                name,
                int(rows.sum()),
                point,
                wilson_interval(int(confusion.trace()), int(rows.sum())),
                f1,
                interval_of(macro_f1[name]),
            )
        )
    large = [group for group in scores if group.images >= FEW_IMAGES]
    return GroupReport(
        column,
        tuple(scores),
        ungrouped,
        _gap({group.name: group.accuracy for group in large}, accuracy),
        _gap({group.name: group.macro_f1 for group in large}, macro_f1),
    )


def describe_gaps(report: GroupReport, escape: Callable[[str], str] = str) -> str:
    """Returns the largest gaps in a few sentences.

    Args:
        report: Figures of all groups.
        escape: Makes a group's name fit for where the sentences go.
    """
    accuracy, macro_f1 = report.accuracy_gap, report.macro_f1_gap
    if accuracy is None or macro_f1 is None:
        return f"No gap is told, as fewer than two groups have {FEW_IMAGES} images."
    ends = [f"{escape(gap.best)} over {escape(gap.worst)}" for gap in (accuracy, macro_f1)]
    points, f1 = accuracy.difference, macro_f1.difference
    return (
        f"The largest gap in accuracy between groups of {FEW_IMAGES} images or more is "
        f"{100 * points.value:.1f} points [{100 * points.interval.low:.1f}, "
        f"{100 * points.interval.high:.1f}], {ends[0]}; in macro-F1 {f1.value:.3f} "
        f"[{f1.interval.low:.3f}, {f1.interval.high:.3f}], {ends[1]}. Two groups picked for their "
        "distance look further apart than they are, the more so the more groups there are."
    )


def _point(confusion: np.ndarray) -> tuple[float, float]:
    hits, truths, answers = confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)
    present = truths > 0
    f1 = 2 * hits[present] / (truths[present] + answers[present])
    return float(hits.sum() / truths.sum()), float(f1.mean())


def _draw(confusion: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns accuracy and macro-F1 in resamples of group `number`, each of shape `(r,)`."""
    accuracy, _, f1 = resample_scores(confusion, seed=[SEED, number])
    return accuracy, f1[:, confusion.sum(axis=1) > 0].mean(axis=1)


def _gap(figures: dict[str, float], spreads: dict[str, np.ndarray]) -> Gap | None:
    if len(figures) < 2:
        return None
    best, worst = max(figures, key=figures.__getitem__), min(figures, key=figures.__getitem__)
    interval = interval_of(spreads[best] - spreads[worst])
    return Gap(best, worst, Difference(figures[best] - figures[worst], interval))
