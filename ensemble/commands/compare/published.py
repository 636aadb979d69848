"""Figures that the study published, to stand beside our own.

The study that this project makes real trained frozen VGG16 and DenseNet121 on
about 15,000 faces (neutral, happy, sad) and validated on 5,000, each with a head
Dense(512), BatchNorm, Dropout(0.2), by Adam. All figures are single runs. A
setting that stands in two of its tables differs between them by up to 3 points.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Rates = tuple[float, float, float]


@dataclass(frozen=True)
class PublishedTable:
    """Accuracies of a table, in %.

    Args:
        title: What varies.
        leaf: Dotted path of what varies.
        fixed: Dotted path to value of what does not.
        rows: For each value of the leaf: branch to training and validation accuracy.
    """

    title: str
    leaf: str
    fixed: Mapping[str, Any]
    rows: Mapping[Any, Mapping[str, tuple[float, float]]]


@dataclass(frozen=True)
class PublishedReport:
    """Precision, recall and F1 of each class, and the accuracy, all in 0..1.

    Args:
        branch: The only branch.
        settings: Dotted path to value.
        classes: For the classes that the study calls class001, class002, class003.
        accuracy: On 1,472 images.
    """

    branch: str
    settings: Mapping[str, Any]
    classes: Sequence[Rates]
    accuracy: float


CLASSES = ("neutral", "happy", "sad")

_BRANCHES = "vgg16", "densenet121"
_RATE, _EPSILON = "training.learning_rate", "training.epsilon"
_INITIALIZER = "model.head.kernel_initializer"
_HEAD = {
    "model.standardize": False,
    "model.head.name": "dense",
    "model.head.units": 512,
    "model.head.dropout": 0.2,
}


def _rows(accuracies: Mapping[Any, Sequence[float]]) -> dict[Any, dict[str, tuple[float, float]]]:
    """Reads rows in the study's order: training of both branches, then validation of both."""
    return {
        value: dict(zip(_BRANCHES, zip(row[:2], row[2:], strict=True), strict=True))
        for value, row in accuracies.items()
    }


TABLES = (
    PublishedTable(
        "Table 1, kernel initializer at rate 1e-3",
        _INITIALIZER,
        {**_HEAD, _RATE: 1e-3, _EPSILON: 1e-7},
        _rows(
            {
                "he_normal": (82.85, 76.37, 79.28, 76.49),
                "glorot_uniform": (79.97, 76.08, 76.97, 76.49),
            }
        ),
    ),
    PublishedTable(
        "Table 2, learning rate with he_normal",
        _RATE,
        {**_HEAD, _INITIALIZER: "he_normal", _EPSILON: 1e-7},
        _rows(
            {
                1e-3: (82.58, 85.65, 76.90, 76.56),
                1e-4: (89.09, 82.55, 75.27, 72.62),
                1e-5: (84.75, 79.16, 73.71, 72.55),
            }
        ),
    ),
    PublishedTable(
        "Table 3, epsilon at rate 1e-5 with he_normal",
        _EPSILON,
        {**_HEAD, _INITIALIZER: "he_normal", _RATE: 1e-5},
        _rows(
            {
                1.0: (83.23, 46.42, 76.63, 48.61),
                0.1: (84.80, 61.90, 74.60, 64.35),
                1e-4: (84.51, 72.77, 74.93, 76.82),
                1e-7: (84.75, 77.06, 73.71, 70.79),
                1e-8: (85.24, 76.78, 73.91, 71.87),
            }
        ),
    ),
)

_AT_FIRST_RATE = {**_HEAD, _RATE: 1e-3, _EPSILON: 1e-7}
REPORTS = (
    PublishedReport(
        "densenet121",
        {**_AT_FIRST_RATE, _INITIALIZER: "he_normal"},
        ((0.68, 0.64, 0.66), (0.93, 0.76, 0.84), (0.65, 0.80, 0.72)),
        0.73,
    ),
    PublishedReport(
        "vgg16",
        {**_AT_FIRST_RATE, _INITIALIZER: "he_normal"},
        ((0.67, 0.81, 0.74), (0.94, 0.84, 0.89), (0.80, 0.71, 0.76)),
        0.79,
    ),
    PublishedReport(
        "densenet121",
        {**_AT_FIRST_RATE, _INITIALIZER: "glorot_uniform"},
        ((0.71, 0.54, 0.61), (0.86, 0.85, 0.86), (0.67, 0.83, 0.74)),
        0.74,
    ),
    PublishedReport(
        "vgg16",
        {**_AT_FIRST_RATE, _INITIALIZER: "glorot_uniform"},
        ((0.57, 0.86, 0.69), (0.84, 0.91, 0.87), (0.92, 0.39, 0.55)),
        0.72,
    ),
)
