"""The phases of a training: the head on stored features, then branches and head on images."""

import logging
import time
from collections.abc import Mapping, Sequence
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
from ensemble.training.fine_tuning import fine_tune, load_pixels, named_input
from ensemble.training.history import History
from ensemble.training.phase import Phase, Session
from ensemble.training.targets import make_targets, one_hot
from ensemble.training.trainer import predict_examples, train_phase

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Trained:
    """Result of all phases.

    Args:
        history: Their epochs.
        probabilities: Predictions for the validation images, shape `(images, num_classes)`.
        features: Record of the engine of each frozen branch; empty where none was needed.
    """

    history: History
    probabilities: np.ndarray
    features: dict[str, Any]


def train_phases(
    ensemble: MultiBranchModel, images: Images, config: ExperimentConfig, session: Session
) -> Trained:
    """Trains the head on features of frozen branches, then the unfrozen stages, on images.

    Either phase may be missing: the second where nothing is unfrozen, the first where
    every branch is trained from random weights.

    Args:
        ensemble: The model; it holds the best epoch's weights afterwards.
        images: Training and validation images.
        config: Settings.
        session: What accompanies the training.

    Raises:
        UserError: If features, votes or stages are not available.
    """
    history, probabilities = None, np.empty(0)
    features: dict[str, Any] = {}
    resumed = session.resume
    if resumed is not None and resumed.phase == fine_tuning.NAME:
        history = resumed.history
    elif not config.from_scratch:
        maps, features = _load_features(ensemble.extractor, images, config)
        history, probabilities = train_head(ensemble.classifier, maps, images, config, session)
    if config.training.unfreeze and not (history and history.interrupted):
        data = _examples(_load_images(images, config), images, config)
        history = fine_tune(ensemble, data, config, session, history)
        probabilities = predict_examples(named_input(ensemble), data[1], batch_size=64)
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
    maps: tuple[Inputs, Inputs],
    images: Images,
    config: ExperimentConfig,
    session: Session,
) -> tuple[History, np.ndarray]:
    """Trains a classifier on features, as the first phase of a run and as a trial of a search.

    Args:
        classifier: From `make_classifier`.
        maps: Branch label to the features of all training views, and of the validation images.
        images: Those images.
        config: Settings.
        session: What accompanies the training.

    Returns:
        The epochs, and the predictions for the validation images, shape `(images, num_classes)`.
    """
    adapt_scales(classifier, maps[0])
    data, training = _examples(maps, images, config), config.training
    phase = Phase("head", training, config.seed, training.epochs, training.learning_rate)
    history = train_phase(classifier, data, phase, session)
    return history, predict_examples(classifier, data[1])


def _load_features(
    extractor: keras.Model, images: Images, config: ExperimentConfig
) -> tuple[tuple[Inputs, Inputs], dict[str, Any]]:
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
    log.info("features ready in %.0f s", time.perf_counter() - started)
    return (train, validation), record_features(branches)


def _load_images(images: Images, config: ExperimentConfig) -> tuple[Inputs, Inputs]:
    folder = FeatureStore(config.features.directory).make_folder()
    train, validation = (
        {"image": load_pixels(part.readable, config.data.image_size, folder)}
        for part in (images.train, images.validation)
    )
    return train, validation


def _examples(
    inputs: tuple[Inputs, Inputs], images: Images, config: ExperimentConfig
) -> tuple[Examples, Examples]:
    """Adds targets to inputs; validation is always evaluated by the label."""
    train, validation = images.train.readable, images.validation.readable
    targets = make_targets(train, images.num_classes, config.targets)
    labels = one_hot(validation.labels, images.num_classes)
    return (
        Examples(inputs[0], targets, train.weights),
        Examples(inputs[1], labels, validation.weights),
    )
