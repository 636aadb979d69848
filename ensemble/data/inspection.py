"""The images of a dataset that can be read, and what is left out of them and why."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from configs.errors import DataError
from configs.schema import DataConfig
from ensemble.data.leakage import (
    Duplicate,
    check_no_duplicates,
    describe_duplicates,
    find_duplicates,
    without_duplicates,
)
from ensemble.data.loading import Dataset, Split
from ensemble.data.reading import Inspection, inspect
from ensemble.data.registry import Problem

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Images:
    """The images of a dataset that can be read.

    Args:
        train: The training images.
        validation: The validation images.
        problems: Images and rows that are left out, and why.
        num_classes: Number of classes.
        duplicates: Images shared by several splits, those dropped included.
        dropped: Number of training images left out as duplicates.
        test: The test images; None where the data has no test split.
    """

    train: Inspection
    validation: Inspection
    problems: Sequence[Problem]
    num_classes: int
    duplicates: Sequence[Duplicate] = ()
    dropped: int = 0
    test: Inspection | None = None


def inspect_dataset(dataset: Dataset, config: DataConfig) -> Images:
    """Reads every image once, to find unreadable and leaked ones before the long work.

    Raises:
        DataError: If an image is in several splits and `duplicates` is "error".
    """
    size = config.image_size
    train = inspect(dataset.train, size, label="Reading training images")
    validation = inspect(dataset.validation, size, label="Reading validation images")
    parts = {"train": train, "validation": validation}
    if dataset.test:
        parts["test"] = inspect(dataset.test, size, label="Reading test images")
    problems = [*dataset.problems]
    for inspection in parts.values():
        problems += inspection.problems
    duplicates = find_duplicates(parts)
    if config.duplicates == "error":
        check_no_duplicates(duplicates)
    kept = without_duplicates(train, duplicates) if config.duplicates == "drop" else train
    dropped = len(train.readable) - len(kept.readable)
    return Images(
        kept,
        validation,
        problems,
        len(dataset.classes),
        duplicates,
        dropped,
        parts.get("test"),
    )


def check_readable(dataset: Dataset, images: Images) -> None:
    """Checks that there are readable images of each class.

    Raises:
        DataError: If a class has no training image that can be read, or if there
            is no validation image that can.
    """
    for part, inspection in (("training", images.train), ("validation", images.validation)):
        counts = count_classes(inspection.readable, dataset.classes)
        for name, count in zip(dataset.classes, counts, strict=True):
            if not count and (part == "training" or not len(inspection.readable)):
                reason = f", such as {inspection.problems[0].name}" if inspection.problems else ""
                raise DataError(
                    f"Class {name!r} has no {part} image that can be read{reason}. "
                    "Replace its images, or leave the class out with --classes."
                )


def log_problems(problems: Sequence[Problem], place: str) -> None:
    """Logs how many images are left out, and where all of them are listed."""
    if problems:
        log.warning(
            "%d images or rows are left out, such as %s (%s)%s",
            len(problems),
            problems[0].name,
            problems[0].reason,
            place,
        )


def log_duplicates(images: Images, place: str) -> None:
    """Logs which images are in several splits, and what was done about it."""
    if images.duplicates:
        log.warning(
            "%s; %s%s",
            describe_duplicates(images.duplicates),
            f"{images.dropped:,} training images are left out"
            if images.dropped
            else "figures on them are too high: --duplicates drop leaves them out of training",
            place,
        )


def count_classes(split: Split, classes: Sequence[str]) -> list[int]:
    """Returns the number of images of each class."""
    return np.bincount(split.labels, minlength=len(classes)).tolist()
