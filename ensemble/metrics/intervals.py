"""Confidence intervals of metrics: how much other images of the same kind would change them.

Proportions of images have Wilson's score interval (Journal of the American Statistical
Association 22, 1927), which keeps its width where none or all predictions are correct. Other
metrics and all differences have the central 95 % of bootstrap resamples of the images (Efron and
Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13). A bootstrap knows only the
mistakes that it has seen: where its interval of macro-F1 has no width, the intervals of the F1 of
the classes are combined instead, as those of recall are for balanced accuracy.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

LEVEL = 0.95
RESAMPLES = 2000
SEED = 1993
METHOD = (
    "Intervals of accuracy, recall and F1 of a class are Wilson's, and that of balanced accuracy "
    "combines them; all others, and those of differences, are by bootstrap"
)

_MIN_RESAMPLES = 1000
_BLOCK = 4_000_000  # sampled numbers at a time: 32 MB
_Z2 = NormalDist().inv_cdf((1 + LEVEL) / 2) ** 2

ConfusionFunction = Callable[[np.ndarray], np.ndarray]  # (..., c, c) to (...)


@dataclass(frozen=True, slots=True)
class Interval:
    """A 95 % interval that includes both ends."""

    low: float
    high: float

    def holds(self, value: float) -> bool:
        """Returns whether a value lies within the interval."""
        return self.low <= value <= self.high

    def around(self, value: float) -> tuple[float, float, float]:
        """Returns a value with the ends of its interval, as plots take it."""
        return value, self.low, self.high

    def __format__(self, spec: str) -> str:
        """Returns both ends in brackets; percentages have no sign, such as [81.2, 84.0]."""
        ends = [f"{end:{spec}}".rstrip("%") for end in (self.low, self.high)]
        return f"[{', '.join(ends)}]"


def wilson_interval(hits: int, images: int) -> Interval:
    """Returns Wilson's interval of the proportion `hits / images`; 0 to 1 without any image."""
    share = float(hits / max(images, 1))
    middle = float((hits + _Z2 / 2) / (images + _Z2))
    spread = float(np.sqrt(_Z2 * (_Z2 / 4 + share * (images - hits)))) / (images + _Z2)
    # rounding must not put the ends within the share, 0 and 1 included
    return Interval(max(0.0, min(share, middle - spread)), min(1.0, max(share, middle + spread)))


def recall_intervals(confusion: np.ndarray) -> list[Interval]:
    """Returns Wilson's interval of the recall of each class."""
    return list(map(wilson_interval, confusion.diagonal(), confusion.sum(axis=1)))


def f1_intervals(confusion: np.ndarray) -> list[Interval]:
    """Returns the interval of the F1 of each class.

    F1 is 2J / (1 + J), where J is the proportion of hits among the images that are of the class
    or predicted as it (Lam et al., arXiv:2309.14621).
    """
    hits = confusion.diagonal()
    unions = confusion.sum(axis=0) + confusion.sum(axis=1) - hits
    shares = [
        wilson_interval(*pair) if pair[1] else Interval(0.0, 0.0)  # by definition of F1
        for pair in zip(hits, unions, strict=True)
    ]
    return [Interval(2 * j.low / (1 + j.low), 2 * j.high / (1 + j.high)) for j in shares]


def mean_interval(values: np.ndarray, intervals: Sequence[Interval]) -> Interval:
    """Returns the interval of a mean of independent values that have intervals of their own.

    References:
        Zou and Donner, Statistics in Medicine 27, 2008.
    """
    low, high = np.transpose([(each.low, each.high) for each in intervals])
    below, above = (float(np.linalg.norm(values - end)) / len(values) for end in (low, high))
    return Interval(float(values.mean()) - below, float(values.mean()) + above)


def bootstrap_interval(
    function: ConfusionFunction,
    confusion: np.ndarray,
    *,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Interval:
    """Returns the bootstrap interval of a function of a confusion matrix.

    Raises:
        ValueError: If there are no images or fewer than 1,000 resamples.
    """
    return central_interval(bootstrap(function, confusion, resamples=resamples, seed=seed))


def bootstrap(
    function: ConfusionFunction,
    confusion: np.ndarray,
    *,
    resamples: int = RESAMPLES,
    seed: int | Sequence[int] = SEED,
) -> np.ndarray:
    """Returns the values of a function of a confusion matrix in resamples, shape `(r,)`."""
    labels, predicted = np.nonzero(confusion)
    blocks = resample(confusion[labels, predicted], len(confusion), resamples, seed)
    return np.concatenate(
        [function(count_confusions(block, labels, predicted, len(confusion))) for block in blocks]
    )


def resample(
    counts: np.ndarray,
    num_classes: int,
    resamples: int = RESAMPLES,
    seed: int | Sequence[int] = SEED,
) -> Iterator[np.ndarray]:
    """Yields the counts of cells in resamples of as many images, shape `(some, cells)`.

    Args:
        counts: Images in each cell.
        num_classes: Limits the size of a block, whose confusion matrices must fit into memory.
        resamples: Total number of resamples, >= 1,000.
        seed: Seed of the resampling.
    """
    images = int(counts.sum())
    if not images:
        raise ValueError("There are no images to resample.")
    if resamples < _MIN_RESAMPLES:
        raise ValueError(f"An interval needs 1,000 resamples at least. Received: {resamples}.")
    random = np.random.default_rng(seed)
    rows = max(1, _BLOCK // max(len(counts), num_classes**2))
    for start in range(0, resamples, rows):
        yield random.multinomial(images, counts / images, size=min(rows, resamples - start))


def count_confusions(
    counts: np.ndarray, labels: np.ndarray, predicted: np.ndarray, num_classes: int
) -> np.ndarray:
    """Returns confusion matrices, shape `(r, c, c)`.

    Args:
        counts: Images in each of `k` cells, shape `(r, k)`.
        labels: True class of each cell, shape `(k,)`.
        predicted: Predicted class of each cell, shape `(k,)`.
        num_classes: `c`.
    """
    cells = labels * num_classes + predicted
    order = np.argsort(cells, kind="stable")
    places, starts = np.unique(cells[order], return_index=True)
    confusions = np.zeros((len(counts), num_classes**2))
    confusions[:, places] = np.add.reduceat(counts[:, order], starts, axis=1)
    return confusions.reshape(-1, num_classes, num_classes)


def central_interval(values: np.ndarray) -> Interval:
    """Returns the central 95 % of values in resamples, shape `(r,)`."""
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high))
