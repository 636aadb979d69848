"""Calibration: how well probabilities agree with accuracies, and temperature scaling.

A calibrated model is correct on about 80 % of the images to which it gives a confidence of 80 %,
where the confidence is the probability of the most probable class. Dividing all logits by one
temperature changes confidences but no predicted class (Guo et al., On calibration of modern
neural networks, ICML 2017).
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from ensemble.metrics.metrics import log_loss

BINS = 15
LOWEST, HIGHEST = 0.05, 20.0  # temperatures
FITTED_ON = "validation"

_MIN_MISTAKES = 10  # to fit a temperature
_MIN_PROBABILITY = float(np.finfo("float32").tiny)


@dataclass(frozen=True, slots=True)
class Bin:
    """Images whose confidence is above `lower` and at most `upper`: their number and means."""

    lower: float
    upper: float
    images: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True, slots=True)
class CalibrationScores:
    """Scores of probabilities; less is better.

    Args:
        ece: Expected calibration error in 0..1: mean distance of accuracy and confidence over the
            bins, weighted by their images.
        nll: Log loss in nats; see `ensemble.metrics.metrics.log_loss`.
        brier: Mean squared distance of probabilities and truth, summed over classes, in 0..2
            (Brier, Verification of forecasts expressed in terms of probability, Monthly Weather
            Review 78, 1950).
    """

    ece: float
    nll: float
    brier: float


@dataclass(frozen=True, eq=False)
class Calibration:
    """Probabilities evaluated without ("before") and with a temperature.

    Args:
        temperature: Divisor of the logits; 1: none was fitted.
        same_images: Whether it was fitted on the evaluated images, which makes scores optimistic.
        before: Scores without it.
        after: Scores with it.
        bins_before: Bins of equal width without it.
        bins: Bins with it.
        risks: `risk_coverage` with it.
    """

    temperature: float
    same_images: bool
    before: CalibrationScores
    after: CalibrationScores
    bins_before: Sequence[Bin]
    bins: Sequence[Bin]
    risks: np.ndarray

    @property
    def fitted(self) -> bool:
        """Whether a temperature was fitted."""
        return self.temperature != 1

    @property
    def aurc(self) -> float:
        """Area under the risk-coverage curve, in 0..1: the mean risk over all coverages."""
        return float(self.risks.mean())

    def panels(self) -> dict[str, np.ndarray]:
        """Returns heading to images, confidence and accuracy of each bin, as plots take them."""
        panels = {"Model": self.bins}
        if self.fitted:
            after = f"After, temperature {self.temperature:.2f}"
            panels = {"Before": self.bins_before, after: self.bins}
        return {
            heading: np.array([(b.images, b.confidence, b.accuracy) for b in bins], dtype=float)
            for heading, bins in panels.items()
        }

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values, ready for JSON; no number is NaN."""
        return {
            "temperature": self.temperature,
            "fitted_on": FITTED_ON if self.fitted else None,
            "same_images": self.same_images,
            "before": asdict(self.before),
            "after": asdict(self.after),
            "bins": [asdict(found) for found in self.bins],
            "bins_before": [asdict(found) for found in self.bins_before],
            "aurc": self.aurc,
        }


def measure_calibration(
    labels: np.ndarray,
    probabilities: np.ndarray,
    temperature: float = 1.0,
    *,
    same_images: bool = False,
) -> Calibration:
    """Evaluates probabilities `(n, c)` that include a temperature, against labels `(n,)`."""
    after = np.asarray(probabilities, dtype=np.float64)
    after = after / after.sum(axis=1, keepdims=True)
    before = apply_temperature(after, 1 / temperature)
    return Calibration(
        temperature=temperature,
        same_images=same_images and temperature != 1,
        before=score_probabilities(labels, before),
        after=score_probabilities(labels, after),
        bins_before=reliability_bins(labels, before),
        bins=reliability_bins(labels, after),
        risks=risk_coverage(labels, after),
    )


def calibrate(
    labels: np.ndarray, probabilities: np.ndarray, *, fit: bool = True
) -> tuple[float, np.ndarray]:
    """Returns the temperature that suits a model (1 unless `fit`), and its new probabilities."""
    temperature = fit_temperature(labels, probabilities) if fit else 1.0
    return temperature, apply_temperature(probabilities, temperature)


def fit_temperature(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Returns the temperature under which the labels are most probable.

    Args:
        labels: True classes of images that the model was not trained on, shape `(n,)`.
        probabilities: Shape `(n, c)`; clipped to 1.2e-38.

    Returns:
        0.05 to 20, above 1 for an overconfident model. 1 where a probability is not a number, and
        for fewer than 10 mistakes, without which the best temperature is 0.
    """
    logits = _logarithms(probabilities)
    mistakes = int((logits.argmax(axis=1) != labels).sum())
    if not np.isfinite(logits).all() or mistakes < _MIN_MISTAKES:
        return 1.0
    rows = np.arange(len(labels))

    def loss(log_temperature: float) -> float:
        return -float(log_softmax(logits / math.exp(log_temperature), axis=1)[rows, labels].mean())

    # The loss is convex in 1 / T, so that it has one minimum in log T as well.
    found = minimize_scalar(
        loss,
        bounds=(math.log(LOWEST), math.log(HIGHEST)),
        method="bounded",
        options={"xatol": 1e-7},
    )
    return math.exp(found.x)


def apply_temperature(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Returns probabilities `(n, c)` after dividing the logits by a temperature above 0.

    Probabilities are clipped to 1.2e-38. The inverse of the temperature undoes it.
    """
    scaled = softmax(_logarithms(probabilities) / temperature, axis=1)
    return scaled.astype(probabilities.dtype)


def score_probabilities(labels: np.ndarray, probabilities: np.ndarray) -> CalibrationScores:
    """Returns calibration error, log loss and Brier score of probabilities of shape `(n, c)`."""
    truth = np.eye(probabilities.shape[1])[labels]
    return CalibrationScores(
        ece=calibration_error(reliability_bins(labels, probabilities)),
        nll=log_loss(labels, probabilities),
        brier=float(((probabilities - truth) ** 2).sum(axis=1).mean()),
    )


def reliability_bins(labels: np.ndarray, probabilities: np.ndarray) -> tuple[Bin, ...]:
    """Sorts images into 15 bins of equal width by their confidence."""
    edges = np.linspace(0, 1, BINS + 1)
    confidences = probabilities.max(axis=1)
    hits = probabilities.argmax(axis=1) == labels
    places = np.digitize(confidences, edges[1:-1], right=True)
    bins = []
    for place, (lower, upper) in enumerate(pairwise(edges.tolist())):
        inside = places == place
        count = int(inside.sum())
        confidence = float(confidences[inside].mean()) if count else None
        accuracy = float(hits[inside].mean()) if count else None
        bins.append(Bin(lower, upper, count, confidence, accuracy))
    return tuple(bins)


def calibration_error(bins: Sequence[Bin]) -> float:
    """Returns the expected calibration error of some bins, in 0..1."""
    gaps = [
        found.images * abs(found.accuracy - found.confidence)
        for found in bins
        if found.accuracy is not None and found.confidence is not None
    ]
    return sum(gaps) / sum(found.images for found in bins)


def risk_coverage(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Returns the proportion of mistakes among the most confident images, for every number of them.

    It shows what is gained by leaving doubtful images to a person (Geifman and El-Yaniv,
    Selective classification for deep neural networks, NIPS 2017).

    Returns:
        Shape `(n,)`; at `k` the risk at a coverage of `(k + 1) / n`. Images of the same
        confidence share their mistakes evenly, so that their order does not matter.
    """
    mistakes = (probabilities.argmax(axis=1) != labels).astype(float)
    _, ranks, counts = np.unique(
        -probabilities.max(axis=1), return_inverse=True, return_counts=True
    )
    shared = np.bincount(ranks, weights=mistakes) / counts
    return np.repeat(shared, counts).cumsum() / np.arange(1, len(labels) + 1)


def _logarithms(probabilities: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(np.asarray(probabilities, dtype=np.float64), _MIN_PROBABILITY))
