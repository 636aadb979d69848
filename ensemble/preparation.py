"""What a training starts from: images that can be read, frozen branches, stored features."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import keras
import numpy as np

from configs.errors import DataError, WeightsError
from configs.schema import DataConfig, ExperimentConfig, FeatureConfig, ModelConfig
from ensemble.datasets.leaks import (
    Repeat,
    describe_repeats,
    find_repeats,
    keep_apart,
    refuse_repeats,
)
from ensemble.datasets.loading import Dataset, Split, load_dataset, locate
from ensemble.datasets.registry import Problem
from ensemble.devices.devices import list_devices
from ensemble.faces.store import face_images
from ensemble.features.frozen_branch import FrozenBranch
from ensemble.features.store import FeatureStore
from ensemble.images.pipeline import Inspection, inspect
from ensemble.images.views import View
from ensemble.model import build_extractor

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Images:
    """The images of a dataset that can be read.

    Args:
        train: What is learned from.
        validation: What early stopping watches.
        problems: Images and rows that are left out, and why.
        num_classes: Number of classes.
        repeats: Images that stand in several splits, those dropped included.
        dropped: How many training images were left out for that.
        test: What was set aside for evaluation; None where the data has no test split.
    """

    train: Inspection
    validation: Inspection
    problems: Sequence[Problem]
    num_classes: int
    repeats: Sequence[Repeat] = ()
    dropped: int = 0
    test: Inspection | None = None


def read_dataset(config: DataConfig, seed: int) -> Dataset:
    """Returns the dataset that settings describe, its splits drawn by the seed.

    Where a face detector is set, an image is the face in it.
    """
    dataset = load_dataset(
        locate(config),
        source=config.source,
        classes=config.classes,
        merge=config.merge,
        validation_fraction=config.validation_fraction,
        seed=seed,
    )
    images = face_images(dataset.train.images, config.faces)
    return replace(
        dataset,
        train=replace(dataset.train, images=images),
        validation=replace(dataset.validation, images=images),
        test=replace(dataset.test, images=images) if dataset.test else None,
    )


def build_frozen(config: ExperimentConfig, dataset: Dataset) -> tuple[keras.Model, ModelConfig]:
    """Builds the extractor; drawn images may do with random weights, and it is told.

    Returns:
        The extractor, and the settings of the model with the weights that it got.

    Raises:
        WeightsError: If weights cannot be had, and the images are not drawn.
    """
    model = config.model
    build = partial(
        build_extractor,
        [branch.label for branch in model.branches],
        input_shape=(config.data.image_size, config.data.image_size, 3),
        fusion=model.fusion,
        seed=config.seed,
    )
    weights = {branch.label: model.weights_of(branch.label) for branch in model.branches}
    try:
        return build(weights=weights), model
    except WeightsError as error:
        if not dataset.synthetic or set(weights.values()) != {"imagenet"}:
            raise
        log.warning(
            "\n*** RANDOM WEIGHTS: the demo goes on without ImageNet weights. Its figures show\n"
            "*** that everything works, not what the branches can do. The reason:\n*** %s\n",
            error,
        )
        return build(weights="random"), model.model_copy(update={"weights": "random"})


def freeze_branches(
    extractor: keras.Model, model: ModelConfig, features: FeatureConfig
) -> list[FrozenBranch]:
    """Returns the branches of an extractor as sources of stored features."""
    store = FeatureStore(features.directory)
    return [
        FrozenBranch(
            extractor,
            branch.label,
            store,
            engine=features.engine,
            precision=features.precision,
            dtype=features.dtype,
        )
        for branch in model.branches
    ]


def training_views(config: DataConfig, seed: int) -> list[View]:
    """Returns the views of a training image, the first of which is the image itself."""
    augment = config.augment
    return [
        View(number, augment.rotation, augment.horizontal_flip, seed)
        for number in range(config.views)
    ]


def inspect_dataset(dataset: Dataset, config: DataConfig) -> Images:
    """Reads every image once, so that a bad or a leaked one is known before the long work begins.

    Raises:
        DataError: If an image stands in several splits, and that is to be an error.
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
    repeats = find_repeats(parts)
    if config.duplicates == "error":
        refuse_repeats(repeats)
    kept = keep_apart(train, repeats) if config.duplicates == "drop" else train
    dropped = len(train.readable) - len(kept.readable)
    return Images(
        kept,
        validation,
        problems,
        len(dataset.classes),
        repeats,
        dropped,
        parts.get("test"),
    )


def refuse_unreadable(dataset: Dataset, images: Images) -> None:
    """Checks that there is something to learn from and to watch.

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
                    "Mend or replace its images, or leave the class out with --classes."
                )


def tell_problems(problems: Sequence[Problem], place: str) -> None:
    """Tells on the screen how many images are left out, and where all of them are listed."""
    if problems:
        log.warning(
            "%d images or rows are left out, such as %s (%s)%s",
            len(problems),
            problems[0].name,
            problems[0].reason,
            place,
        )


def tell_repeats(images: Images, place: str) -> None:
    """Tells on the screen which images stand in several splits, and what was done about it."""
    if images.repeats:
        log.warning(
            "%s; %s%s",
            describe_repeats(images.repeats),
            f"{images.dropped:,} training images are left out for it"
            if images.dropped
            else "figures on them are too high: --duplicates drop leaves them out of training",
            place,
        )


def fill_store(config: ExperimentConfig) -> str:
    """Extracts the features that a training with these settings would, and stores them.

    Returns:
        Lines that say what was done, for the screen.

    Raises:
        UserError: If data, weights or the store cannot be used.
    """
    dataset = read_dataset(config.data, config.seed)
    extractor, model = build_frozen(config, dataset)
    tell_start(config, dataset)
    images = inspect_dataset(dataset, config.data)
    tell_problems(images.problems, "")
    tell_repeats(images, "")
    refuse_unreadable(dataset, images)

    started = time.perf_counter()
    branches = freeze_branches(extractor, model, config.features)
    fill_branches(branches, images, config)
    lines = [tell_branch(branch) for branch in branches]
    return "\n".join([*lines, f"took {time.perf_counter() - started:.0f} s"])


def fill_branches(
    branches: Sequence[FrozenBranch], images: Images, config: ExperimentConfig
) -> None:
    """Sees to it that the features of all views of all images are stored."""
    views = training_views(config.data, config.seed)
    for branch in branches:
        branch.fill(images.train.readable, images.train.digests, views)
        branch.fill(images.validation.readable, images.validation.digests, views[:1])


def tell_start(config: ExperimentConfig, dataset: Dataset) -> None:
    """Tells on the screen what is going to be looked at by what."""
    for note in dataset.notes:
        log.info("%s", note)
    log.info(
        "%s: %d training and %d validation images of %d classes (%s)",
        dataset.name,
        len(dataset.train),
        len(dataset.validation),
        len(dataset.classes),
        ", ".join(dataset.classes),
    )
    log.info(
        "branches %s, fusion %s, head %s, on %s with %s",
        ", ".join(branch.label for branch in config.model.branches),
        config.model.fusion,
        config.model.head.name,
        ", ".join(list_devices()),
        keras.config.backend(),
    )


def tell_branch(branch: FrozenBranch) -> str:
    """Returns what was extracted by what, and what was there already."""
    how = f" by {branch.engine}" if branch.engine else ""
    return f"{branch.label}: {branch.extracted:,} views extracted{how}, {branch.reused:,} reused"


def count_classes(split: Split, classes: Sequence[str]) -> list[int]:
    """Returns the number of images of each class."""
    return np.bincount(split.labels, minlength=len(classes)).tolist()
