"""How far a model's probabilities can be taken at their word, and one number that mends them.

A calibrated model is right about 80 % of the images to which it gives a confidence
of 80 %, a confidence being the probability of the most probable class. Dividing all
logits by one temperature moves confidences and no answer (Guo et al., On calibration
of modern neural networks, ICML 2017).
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

BINS = 15
LOWEST, HIGHEST = 0.05, 20.0  # temperatures
FITTED_ON = "validation"

_FEWEST_MISTAKES = 10  # that tell anything of a temperature
_SMALLEST = float(np.finfo("float32").tiny)
_LEAST_LIKELY = float(np.finfo("float64").eps)  # as in scikit-learn's log_loss


@dataclass(frozen=True, slots=True)
class Bin:
    """The images whose confidence is above `lower` and at most `upper`.

    Args:
        lower: In 0..1, as `upper`.
        upper: Of the last bin 1.
        images: Their number.
        confidence: Their mean confidence; None where there are none.
        accuracy: Share of them that is answered correctly; None where there are none.
    """

    lower: float
    upper: float
    images: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True, slots=True)
class CalibrationScores:
    """How good probabilities are; less is better.

    Args:
        ece: Expected calibration error in 0..1: the mean distance of accuracy and
            confidence over the bins, each weighted by its images.
        nll: Mean negative natural logarithm of the probability given to the true class,
            in nats; a probability below 2.2e-16 counts as that.
        brier: Mean over the images of the squared differences between probabilities and
            the truth, summed over all classes: 0..2, the form of Brier (Verification of
            forecasts expressed in terms of probability, Monthly Weather Review 78, 1950).
    """

    ece: float
    nll: float
    brier: float


@dataclass(frozen=True, eq=False)
class Calibration:
    """Probabilities judged without a temperature and with it.

    Args:
        temperature: What the logits were divided by; 1: nothing was fitted.
        same_images: Whether it was fitted on the very images that are judged, which flatters it.
        before: Of the probabilities without it.
        after: Of those with it.
        bins_before: Of equal width, in order; those without images are among them.
        bins: The same with the temperature.
        risks: See `risk_coverage`; with the temperature.
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
        """Whether there is a temperature at all."""
        return self.temperature != 1

    @property
    def aurc(self) -> float:
        """The area under the risk-coverage curve, in 0..1: the mean risk over all coverages."""
        return float(self.risks.mean())

    def panels(self) -> dict[str, np.ndarray]:
        """Returns heading to bins as `plot_reliability` draws them."""
        if not self.fitted:
            return {"Model": _as_array(self.bins)}
        after = f"After, temperature {self.temperature:.2f}"
        return {"Before": _as_array(self.bins_before), after: _as_array(self.bins)}

    def to_dict(self) -> dict[str, Any]:
        """Returns dictionaries, lists and plain numbers, ready for JSON; no number is NaN."""
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
    """Judges the probabilities of a model that has a temperature, and what they were without it.

    Args:
        labels: True classes, shape `(n,)`, integer.
        probabilities: Shape `(n, c)`, as the model gives them.
        temperature: What is inside them already.
        same_images: Whether the temperature was fitted on these images.
    """
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
    """Returns the temperature that suits a model, and its answers with that temperature.

    Args:
        labels: As in `fit_temperature`.
        probabilities: As there.
        fit: Whether to fit one at all; if not, it is 1.
    """
    temperature = fit_temperature(labels, probabilities) if fit else 1.0
    return temperature, apply_temperature(probabilities, temperature)


def fit_temperature(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Returns the temperature under which the labels are most probable.

    Args:
        labels: True classes of images that the model did not learn from, shape `(n,)`.
        probabilities: Shape `(n, c)`; one below 1.2e-38 counts as that.

    Returns:
        0.05 to 20, above 1 for a model that is too sure of itself. 1 where fewer than 10
        images are answered wrongly, as without mistakes the likelihood grows without end
        the lower the temperature, and where an answer is not a number.
    """
    logits = _logarithms(probabilities)
    mistakes = int((logits.argmax(axis=1) != labels).sum())
    if not np.isfinite(logits).all() or mistakes < _FEWEST_MISTAKES:
        return 1.0
    rows = np.arange(len(labels))

    def loss(log_temperature: float) -> float:
        return -float(log_softmax(logits / math.exp(log_temperature), axis=1)[rows, labels].mean())

    # The loss is convex in 1 / T, so that it has one valley in log T as well.
    found = minimize_scalar(
        loss,
        bounds=(math.log(LOWEST), math.log(HIGHEST)),
        method="bounded",
        options={"xatol": 1e-7},
    )
    return math.exp(found.x)


def apply_temperature(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Returns the probabilities of a model whose logits are divided by a temperature.

    Args:
        probabilities: Shape `(n, c)`, of the model without it; one below 1.2e-38 counts as that.
        temperature: Above 0; its inverse undoes it.

    Returns:
        The same shape and type.
    """
    scaled = softmax(_logarithms(probabilities) / temperature, axis=1)
    return scaled.astype(probabilities.dtype)


def score_probabilities(labels: np.ndarray, probabilities: np.ndarray) -> CalibrationScores:
    """Returns calibration error, likelihood and Brier score of probabilities of shape `(n, c)`."""
    likelihoods = probabilities[np.arange(len(labels)), labels]
    truth = np.eye(probabilities.shape[1])[labels]
    return CalibrationScores(
        ece=calibration_error(reliability_bins(labels, probabilities)),
        nll=float(-np.log(np.maximum(likelihoods, _LEAST_LIKELY)).mean()),
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
        bins.append(
            Bin(
                lower,
                upper,
                count,
                float(confidences[inside].mean()) if count else None,
                float(hits[inside].mean()) if count else None,
            )
        )
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
    """Returns the share of mistakes among the most confident images, for every number of them.

    It tells what is gained by leaving doubtful images to a person (Geifman and El-Yaniv,
    Selective classification for deep neural networks, NIPS 2017).

    Args:
        labels: True classes, shape `(n,)`.
        probabilities: Shape `(n, c)`.

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
    return np.log(np.maximum(np.asarray(probabilities, dtype=np.float64), _SMALLEST))


def _as_array(bins: Sequence[Bin]) -> np.ndarray:
    return np.array([astuple(found) for found in bins], dtype=float)
