"""How far a figure may be off because the images are a sample: intervals and paired tests.

Proportions of images have Wilson's score interval (Journal of the American
Statistical Association 22, 1927), which keeps its width where none or all of the
answers are right. F1 is a function of one proportion, and balanced accuracy a mean
of independent ones; both follow from it. Macro-F1 and all differences have the
central 95 % of bootstrap resamples of the images (Efron and Tibshirani, An
Introduction to the Bootstrap, 1993, chapter 13), sampled as counts of a confusion
matrix from a multinomial distribution. A bootstrap knows only the mistakes it has
seen: where its interval of macro-F1 has no width, the intervals of F1 of the classes
are combined instead, as those of recall are for balanced accuracy.

An interval describes what other images of the same kind would change, not what
another seed of the training would.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from scipy import sparse, stats

LEVEL = 0.95
RESAMPLES = 2000
SEED = 1993
METHOD = (
    "Intervals of accuracy, recall and F1 of a class are Wilson's, and that of balanced accuracy "
    "combines them; those of macro-F1 and of differences are by bootstrap"
)
NO_GAIN = "no proven gain"

_FEW_DISCORDANT = 25
_BLOCK = 4_000_000  # drawn numbers at a time: 32 MB


@dataclass(frozen=True, slots=True)
class Interval:
    """The ends of a 95 % interval, both within it."""

    low: float
    high: float

    def holds(self, value: float) -> bool:
        """Returns whether a value lies within the interval."""
        return self.low <= value <= self.high


@dataclass(frozen=True, slots=True)
class ScoreIntervals:
    """The intervals of the figures of a confusion matrix.

    Args:
        accuracy: Of the share of images answered correctly.
        balanced_accuracy: Of the mean recall over the classes that have images.
        macro_f1: Of the unweighted mean F1 over all classes.
        class_f1: Of the F1 of each class.
        class_recall: Of the recall of each class; 0 to 1 for a class without images.
    """

    accuracy: Interval
    balanced_accuracy: Interval
    macro_f1: Interval
    class_f1: tuple[Interval, ...]
    class_recall: tuple[Interval, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """By how much a second model's figure is above a first one's, on the same images."""

    value: float
    interval: Interval

    @property
    def verdict(self) -> str:
        """ "no proven gain" where the interval holds 0, else "better" or "worse"."""
        if self.interval.holds(0):
            return NO_GAIN
        return "better" if self.value > 0 else "worse"


@dataclass(frozen=True, slots=True)
class McNemar:
    """Whether two models differ in how many images they answer correctly.

    Args:
        only_first: Images that the first model alone answers correctly.
        only_second: Images that the second model alone answers correctly.
        p_value: Two-sided, in 0..1.
        method: "exact" or "mid-p".
    """

    only_first: int
    only_second: int
    p_value: float
    method: Literal["exact", "mid-p"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two models on the same images; each difference is the second's figure minus the first's."""

    images: int
    accuracy: Difference
    balanced_accuracy: Difference
    macro_f1: Difference
    mcnemar: McNemar

    @property
    def verdict(self) -> str:
        """One line on the accuracy, such as "better by 2.10 points (0.85 to 3.40)"."""
        gain = self.accuracy
        low, high = 100 * gain.interval.low, 100 * gain.interval.high
        return f"{gain.verdict}: {100 * gain.value:+.2f} points ({low:+.2f} to {high:+.2f})"

    def to_dict(self) -> dict[str, Any]:
        """Returns dictionaries and plain numbers, ready for JSON."""
        return {**asdict(self), "verdict": self.verdict}


def score_intervals(
    confusion: np.ndarray | Sequence[Sequence[int]],
    *,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> ScoreIntervals:
    """Returns the intervals of accuracy, balanced accuracy, F1 and recall.

    The F1 of a class is 2J / (1 + J), where J is the share of its hits among the images
    that are of the class or predicted as it (Lam et al., arXiv:2309.14621). Balanced
    accuracy combines the intervals of the recalls (Zou and Donner, Statistics in Medicine
    27, 2008). Takes and raises what `resample_scores` does.
    """
    matrix = np.asarray(confusion)
    *_, f1 = resample_scores(matrix, resamples=resamples, seed=seed)
    hits, truths = matrix.diagonal(), matrix.sum(axis=1)
    unions = truths + matrix.sum(axis=0) - hits
    class_f1 = tuple(map(_f1_interval, hits, unions))
    macro_f1 = interval_of(f1.mean(axis=1))
    if macro_f1.low == macro_f1.high:
        macro_f1 = _mean_interval(_divide(2.0 * hits, hits + unions), class_f1)
    recalls = [wilson_interval(*pair) for pair in zip(hits, truths, strict=True)]
    return ScoreIntervals(
        accuracy=wilson_interval(hits.sum(), matrix.sum()),
        balanced_accuracy=_mean_interval(
            hits[truths > 0] / truths[truths > 0],
            [recall for recall, images in zip(recalls, truths, strict=True) if images],
        ),
        macro_f1=macro_f1,
        class_f1=class_f1,
        class_recall=tuple(recalls),
    )


def wilson_interval(hits: int, images: int) -> Interval:
    """Returns Wilson's 95 % interval of a proportion; 0 to 1 without any image.

    Args:
        hits: Images that count, 0 to `images`.
        images: All images.
    """
    z2 = float(stats.norm.ppf((1 + LEVEL) / 2)) ** 2
    share = float(hits / max(images, 1))
    middle = (hits + z2 / 2) / (images + z2)
    spread = float(np.sqrt(z2 * (z2 / 4 + share * (images - hits)))) / (images + z2)
    # rounding must not put the ends within the share, 0 and 1 included
    return Interval(max(0.0, min(share, middle - spread)), min(1.0, max(share, middle + spread)))


def _f1_interval(hits: int, union: int) -> Interval:
    if not union:
        return Interval(0.0, 0.0)  # by definition, as nothing was counted
    share = wilson_interval(hits, union)
    return Interval(2 * share.low / (1 + share.low), 2 * share.high / (1 + share.high))


def _mean_interval(values: np.ndarray, intervals: Sequence[Interval]) -> Interval:
    """Returns the interval of a mean of independent figures with intervals of their own."""
    low, high = np.transpose([(each.low, each.high) for each in intervals])
    below, above = (float(np.linalg.norm(values - end)) / len(values) for end in (low, high))
    return Interval(float(values.mean()) - below, float(values.mean()) + above)


def resample_scores(
    confusion: np.ndarray | Sequence[Sequence[int]],
    *,
    resamples: int = RESAMPLES,
    seed: int | Sequence[int] = SEED,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns accuracy `(r,)`, balanced accuracy `(r,)` and F1 `(r, c)` in bootstrap resamples.

    In a resample as in `ensemble.metrics.metrics`, a class that is neither there nor
    answered has F1 0, and balanced accuracy is over the classes that are there.

    Args:
        confusion: Counts of shape `(c, c)`; row: true class, column: predicted class.
        resamples: Number of resamples, >= 1,000.
        seed: Of the draw.

    Raises:
        ValueError: If there is no image, or resamples are too few.
    """
    matrix = np.asarray(confusion)
    labels, answers = np.nonzero(matrix)
    draws = _resample(matrix[labels, answers], resamples, seed)
    accuracy, balanced, f1 = _join(_score(draw, labels, answers, len(matrix)) for draw in draws)
    return accuracy, balanced, f1


def compare(
    labels: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    *,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Comparison:
    """Compares the answers of two models to the same images.

    The bootstrap is paired: a resample takes both answers to an image together,
    so that what makes an image hard for both does not widen the interval.

    Args:
        labels: True classes as indices, shape `(n,)`, integer.
        first: Answers of the first model, as labels.
        second: Answers of the second model, as labels.
        resamples: Number of resamples, >= 1,000.
        seed: Of the draw.

    Raises:
        ValueError: If shapes differ, there is no image, or resamples are too few.
    """
    answers = np.stack([np.asarray(labels), np.asarray(first), np.asarray(second)])
    if answers.ndim != 2 or not answers.shape[1]:
        raise ValueError(f"Expected three rows of (n,) indices. Received: {answers.shape}.")
    num_classes = int(answers.max()) + 1
    cells, counts = np.unique(answers, axis=1, return_counts=True)

    def gain(draw: np.ndarray) -> tuple[np.ndarray, ...]:
        before, after = (_score(draw, cells[0], cells[model], num_classes) for model in (1, 2))
        accuracy, balanced, f1 = (
            second - first for first, second in zip(before, after, strict=True)
        )
        return accuracy, balanced, f1.mean(axis=1)

    spreads = _join(gain(draw) for draw in _resample(counts, resamples, seed))
    accuracy, balanced, macro_f1 = (
        Difference(float(value[0]), interval_of(spread))
        for value, spread in zip(gain(counts[None]), spreads, strict=True)
    )
    right = answers[1:] == answers[0]
    only_first = int(np.sum(right[0] & ~right[1]))
    only_second = int(np.sum(right[1] & ~right[0]))
    mcnemar = mcnemar_test(only_first, only_second)
    return Comparison(answers.shape[1], accuracy, balanced, macro_f1, mcnemar)


def mcnemar_test(only_first: int, only_second: int) -> McNemar:
    """Tests whether two models are correct equally often, from the images on which they differ.

    McNemar, Psychometrika 12 (1947). With fewer than 25 such images the test is
    the exact binomial one, above the mid-p variant, which keeps its level and,
    unlike the exact test and the chi-squared one with continuity correction, is
    not needlessly cautious (Fagerland, Lydersen and Laake, BMC Medical Research
    Methodology 13:91, 2013).

    Args:
        only_first: Images that the first model alone answers correctly.
        only_second: Images that the second model alone answers correctly.
    """
    discordant, smaller = only_first + only_second, min(only_first, only_second)
    tail = float(stats.binom.cdf(smaller, discordant, 0.5))
    if discordant < _FEW_DISCORDANT:
        return McNemar(only_first, only_second, min(1.0, 2 * tail), "exact")
    point = float(stats.binom.pmf(smaller, discordant, 0.5))
    mid_p = 1 - point / 2 if only_first == only_second else 2 * tail - point
    return McNemar(only_first, only_second, mid_p, "mid-p")


def _check_resamples(images: int, resamples: int) -> None:
    if not images:
        raise ValueError("There are no images to resample.")
    if resamples < 1000:
        raise ValueError(f"An interval needs 1,000 resamples at least. Received: {resamples}.")


def _resample(
    counts: np.ndarray, resamples: int, seed: int | Sequence[int]
) -> Iterator[np.ndarray]:
    """Yields the counts in resamples of as many images, shape `(some, cells)`, in blocks."""
    images = int(counts.sum())
    _check_resamples(images, resamples)
    random = np.random.default_rng(seed)
    rows = max(1, _BLOCK // len(counts))
    for start in range(0, resamples, rows):
        yield random.multinomial(images, counts / images, size=min(rows, resamples - start))


def _join(blocks: Iterable[tuple[np.ndarray, ...]]) -> list[np.ndarray]:
    return [np.concatenate(columns) for columns in zip(*blocks, strict=True)]


def _score(
    counts: np.ndarray, labels: np.ndarray, answers: np.ndarray, num_classes: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns accuracy `(r,)`, balanced accuracy `(r,)` and F1 `(r, c)` of counts `(r, cells)`.

    Args:
        counts: Images in each cell.
        labels: True class of each cell.
        answers: Predicted class of each cell.
        num_classes: c.
    """
    hits = _sum_by_class(counts * (labels == answers), labels, num_classes)
    truths = _sum_by_class(counts, labels, num_classes)
    recall = _divide(hits, truths)
    f1 = _divide(2 * hits, truths + _sum_by_class(counts, answers, num_classes))
    balanced = recall.sum(axis=1) / (truths > 0).sum(axis=1)
    return hits.sum(axis=1) / truths.sum(axis=1), balanced, f1


def _sum_by_class(counts: np.ndarray, classes: np.ndarray, num_classes: int) -> np.ndarray:
    ones = (np.ones(len(classes)), (classes, np.arange(len(classes))))
    return (sparse.csr_array(ones, shape=(num_classes, len(classes))) @ counts.T).T


def _divide(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)


def interval_of(values: np.ndarray) -> Interval:
    """Returns the central 95 % of a figure's values in resamples, shape `(r,)`."""
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high))
