"""Extraction: the frozen branches of an experiment, and the features that they store."""

import logging
import time
from collections.abc import Sequence
from functools import partial

import keras

from configs.errors import WeightsError
from configs.schema import ExperimentConfig, FeatureConfig, ModelConfig
from ensemble.data.inspection import (
    Images,
    check_readable,
    inspect_dataset,
    log_duplicates,
    log_problems,
)
from ensemble.data.loading import Dataset
from ensemble.data.views import training_views
from ensemble.faces.store import read_dataset
from ensemble.features.frozen_branch import FrozenBranch
from ensemble.features.store import FeatureStore
from ensemble.model.composition import build_extractor
from ensemble.system.devices import list_devices

log = logging.getLogger(__name__)


def fill_store(config: ExperimentConfig) -> str:
    """Extracts and stores the features that a training with these settings reads.

    Returns:
        Lines that report what was done.

    Raises:
        UserError: If data, weights or the store cannot be used.
    """
    dataset = read_dataset(config.data, config.seed)
    extractor, model = build_frozen(config, dataset)
    log_start(config, dataset)
    images = inspect_dataset(dataset, config.data)
    log_problems(images.problems, "")
    log_duplicates(images, "")
    check_readable(dataset, images)

    started = time.perf_counter()
    branches = freeze_branches(extractor, model, config.features)
    fill_branches(branches, images, config)
    lines = [describe_branch(branch) for branch in branches]
    return "\n".join([*lines, f"took {time.perf_counter() - started:.0f} s"])


def build_frozen(config: ExperimentConfig, dataset: Dataset) -> tuple[keras.Model, ModelConfig]:
    """Builds the extractor, with random weights and a warning if ImageNet's are not available.

    Random weights are a fallback for synthetic images only.

    Returns:
        The extractor, and the settings of the model with its actual weights.

    Raises:
        WeightsError: If weights are not available, and the images are not synthetic.
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
            "\n*** RANDOM WEIGHTS: the demo continues without ImageNet weights. Its figures show\n"
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


def fill_branches(
    branches: Sequence[FrozenBranch], images: Images, config: ExperimentConfig
) -> None:
    """Stores the features of all views of all images."""
    views = training_views(config.data, config.seed)
    for branch in branches:
        branch.fill(images.train.readable, images.train.digests, views)
        branch.fill(images.validation.readable, images.validation.digests, views[:1])


def log_start(config: ExperimentConfig, dataset: Dataset) -> None:
    """Logs data, branches, head and devices."""
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


def describe_branch(branch: FrozenBranch) -> str:
    """Returns how many views were extracted, by which engine, and how many were reused."""
    how = f" by {branch.engine}" if branch.engine else ""
    return f"{branch.label}: {branch.extracted:,} views extracted{how}, {branch.reused:,} reused"
