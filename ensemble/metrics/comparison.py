"""Paired comparison of two models on the same images."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ensemble.metrics.intervals import (
    RESAMPLES,
    SEED,
    Interval,
    central_interval,
    count_confusions,
    resample,
)
from ensemble.metrics.metrics import METRICS, ConfusionMetric

NOT_BETTER = "not significantly better"

_FEW_DISCORDANT = 25


@dataclass(frozen=True, slots=True)
class Difference:
    """Metric of a second model minus that of a first one, on the same images."""

    value: float
    interval: Interval

    @property
    def conclusion(self) -> str:
        """ "better" or "worse"; "not significantly better" where the interval contains 0."""
        if self.interval.holds(0):
            return NOT_BETTER
        return "better" if self.value > 0 else "worse"

    @property
    def points(self) -> str:
        """The difference in percentage points with its interval."""
        return f"{100 * self.value:+.2f} {self.interval:+.2%}"


@dataclass(frozen=True, slots=True)
class McNemar:
    """McNemar's two-sided test, from the images that only one of two models predicts correctly."""

    only_first: int
    only_second: int
    p_value: float
    method: Literal["exact", "mid-p"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two models on the same images: differences by metric, and a test of the accuracies."""

    images: int
    differences: Mapping[str, Difference]
    mcnemar: McNemar

    @property
    def accuracy(self) -> Difference:
        """Difference of the accuracies."""
        return self.differences["accuracy"]

    def __str__(self) -> str:
        return f"{self.accuracy.conclusion}: {self.accuracy.points} points"


def compare(
    labels: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    *,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Comparison:
    """Compares the predictions of two models on the same images.

    The bootstrap is paired: a resample takes both predictions of an image together, so that what
    makes an image hard for both does not widen the interval.

    Args:
        labels: True classes as indices, shape `(n,)`, integer.
        first: Classes predicted by the first model, likewise.
        second: Classes predicted by the second model, likewise.
        resamples: Number of resamples, >= 1,000.
        seed: Seed of the resampling.

    Raises:
        ValueError: If shapes differ, there is no image, or resamples are too few.
    """
    rows = np.stack([np.asarray(labels), np.asarray(first), np.asarray(second)])
    if rows.ndim != 2 or not rows.shape[1]:
        raise ValueError(f"Expected three rows of (n,) indices. Received: {rows.shape}.")
    num_classes = int(rows.max()) + 1
    cells, counts = np.unique(rows, axis=1, return_counts=True)
    metrics = [metric for metric in METRICS.values() if isinstance(metric, ConfusionMetric)]

    def subtract(block: np.ndarray) -> np.ndarray:
        before, after = (
            count_confusions(block, cells[0], cells[model], num_classes) for model in (1, 2)
        )
        return np.stack([metric.function(after) - metric.function(before) for metric in metrics])

    resampled = [subtract(block) for block in resample(counts, num_classes, resamples, seed)]
    differences = {
        metric.name: Difference(float(value), central_interval(values))
        for metric, value, values in zip(
            metrics, subtract(counts[None])[:, 0], np.concatenate(resampled, axis=1), strict=True
        )
    }
    correct = rows[1:] == rows[0]
    only_first = int(np.sum(correct[0] & ~correct[1]))
    only_second = int(np.sum(correct[1] & ~correct[0]))
    return Comparison(rows.shape[1], differences, mcnemar_test(only_first, only_second))


def mcnemar_test(only_first: int, only_second: int) -> McNemar:
    """Tests whether two models are correct equally often, from the images on which they differ.

    With fewer than 25 such images the test is the exact binomial one, above the mid-p variant,
    which keeps its level and is not needlessly cautious.

    References:
        McNemar, Psychometrika 12, 1947. Fagerland, Lydersen and Laake, BMC Medical Research
        Methodology 13:91, 2013.
    """
    from scipy.stats import binom

    discordant, smaller = only_first + only_second, min(only_first, only_second)
    tail = float(binom.cdf(smaller, discordant, 0.5))
    if discordant < _FEW_DISCORDANT:
        return McNemar(only_first, only_second, min(1.0, 2 * tail), "exact")
    point = float(binom.pmf(smaller, discordant, 0.5))
    mid_p = 1 - point / 2 if only_first == only_second else 2 * tail - point
    return McNemar(only_first, only_second, mid_p, "mid-p")
