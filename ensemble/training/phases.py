"""The phases of a training: the head on stored features, then branches and head on images."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from configs.schema import ExperimentConfig, ModelConfig
from ensemble.data.batches import Examples, Inputs
from ensemble.data.inspection import Images
from ensemble.data.views import training_views
from ensemble.features.extraction import describe_branch, freeze_branches
from ensemble.features.store import FeatureStore
from ensemble.model.composition import FeatureShape, MultiBranchModel, build_classifier
from ensemble.model.fusion import adapt_scales
from ensemble.runs.records import record_features
from ensemble.training import fine_tuning
from ensemble.training.distribution import ALONE, Distribution
from ensemble.training.fine_tuning import fine_tune, load_pixels, named_input
from ensemble.training.history import History, Progress
from ensemble.training.targets import make_targets, one_hot
from ensemble.training.trainer import predict_examples, train_model

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Trained:
    """What all phases came to.

    Args:
        history: Their epochs.
        probabilities: The answers on validation images, shape `(images, num_classes)`.
        features: What ran each frozen branch, for the records; empty where none had to.
    """

    history: History
    probabilities: np.ndarray
    features: dict[str, Any]


def train_phases(
    ensemble: MultiBranchModel,
    images: Images,
    config: ExperimentConfig,
    *,
    progress: Progress | None = None,
    keep: Callable[[Progress], object] | None = None,
    trackers: Sequence[keras.callbacks.Callback] = (),
    distribution: Distribution = ALONE,
) -> Trained:
    """Trains the head on features of frozen branches, then what is to be thawed, on images.

    Either phase may be missing: the second where nothing is to be thawed, the
    first where every branch learns from random weights.

    Args:
        ensemble: The model; it holds the best epoch's weights afterwards.
        images: What is learned from and judged.
        config: Settings.
        progress: Where it stood when it was broken off.
        keep: Called with where it stands after each epoch.
        trackers: Told of every epoch too.
        distribution: Who shares the steps.

    Raises:
        UserError: If features, votes or stages cannot be had.
    """
    history, probabilities = None, np.empty(0)
    features: dict[str, Any] = {}
    common: dict[str, Any] = {
        "keep": keep,
        "trackers": trackers,
        "distribution": distribution,
    }
    in_second = progress is not None and progress.phase == fine_tuning.NAME
    if not config.from_scratch and not in_second:
        maps, validation_maps, features = _load_features(ensemble.extractor, images, config)
        history, probabilities = train_head(
            ensemble.classifier,
            maps,
            validation_maps,
            images,
            config,
            resume=progress,
            **common,
        )
    if config.training.unfreeze and not (history and history.interrupted):
        data, validation = _examples(*_load_images(images, config), images, config)
        resumed = progress if in_second else None
        history = fine_tune(
            ensemble, data, validation, config, history=history, resume=resumed, **common
        )
        probabilities = predict_examples(named_input(ensemble), validation, batch_size=64)
    assert history is not None
    return Trained(history, probabilities, features)


def make_classifier(
    model: ModelConfig, shapes: Mapping[str, FeatureShape], classes: Sequence[str]
) -> keras.Model:
    """Builds the classifier that settings describe; see `build_classifier`."""
    return build_classifier(
        shapes,
        classes=classes,
        fusion=model.fusion,
        standardize=model.standardize,
        head=model.head.name,
        head_options=model.head.options,
    )


def train_head(
    classifier: keras.Model,
    maps: Inputs,
    validation_maps: Inputs,
    images: Images,
    config: ExperimentConfig,
    **more: Any,
) -> tuple[History, np.ndarray]:
    """Trains a classifier on features, as the first phase of a run and as a trial of a search.

    Args:
        classifier: From `make_classifier`.
        maps: Branch label to the features of all training views.
        validation_maps: Branch label to the features of the validation images.
        images: Those images.
        config: Settings.
        **more: What `train_model` takes beside.

    Returns:
        The epochs, and the answers on validation images, shape `(images, num_classes)`.
    """
    adapt_scales(classifier, maps)
    data, validation = _examples(maps, validation_maps, images, config)
    history = train_model(classifier, data, validation, config.training, seed=config.seed, **more)
    return history, predict_examples(classifier, validation)


def _load_features(
    extractor: keras.Model, images: Images, config: ExperimentConfig
) -> tuple[Inputs, Inputs, dict[str, Any]]:
    """Returns the features of all training views and of the validation images, and records."""
    started = time.perf_counter()
    branches = freeze_branches(extractor, config.model, config.features)
    views = training_views(config.data, config.seed)
    train, validation = {}, {}
    for branch in branches:
        train[branch.label] = branch.load(images.train.readable, images.train.digests, views)
        validation[branch.label] = branch.load(
            images.validation.readable, images.validation.digests, views[:1]
        )
        log.info("%s", describe_branch(branch))
    log.info("features had in %.0f s", time.perf_counter() - started)
    return train, validation, record_features(branches)


def _load_images(images: Images, config: ExperimentConfig) -> tuple[Inputs, Inputs]:
    folder = FeatureStore(config.features.directory).make_folder()
    train, validation = (
        {"image": load_pixels(part.readable, config.data.image_size, folder)}
        for part in (images.train, images.validation)
    )
    return train, validation


def _examples(
    train_inputs: Inputs, validation_inputs: Inputs, images: Images, config: ExperimentConfig
) -> tuple[Examples, Examples]:
    """Puts targets beside inputs; validation is always judged by the label."""
    train, validation = images.train.readable, images.validation.readable
    targets = make_targets(train, images.num_classes, config.targets)
    labels = one_hot(validation.labels, images.num_classes)
    return (
        Examples(train_inputs, targets, train.weights),
        Examples(validation_inputs, labels, validation.weights),
    )
