"""The search space as a hypermodel of KerasTuner, whose trials train on stored features."""

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import keras_tuner

from configs.errors import ConfigError
from configs.schema import ExperimentConfig
from configs.search import SearchExperiment
from ensemble.commands.search.features import FeatureSet, describe_origin
from ensemble.commands.search.spaces import SearchSpace, serves
from ensemble.data.inspection import count_classes
from ensemble.metrics.calibration import calibrate
from ensemble.metrics.metrics import majority_class
from ensemble.metrics.predictions import Predictions
from ensemble.metrics.report import Report
from ensemble.training.history import History, Progress
from ensemble.training.phase import Session
from ensemble.training.phases import make_classifier, train_head


@dataclass(frozen=True)
class TrialResult:
    """The result of training a model of the search space.

    Args:
        report: Its evaluation on the validation split.
        history: Its epochs.
        progress: Its state after the last epoch.
        seconds: Duration of the training.
    """

    report: Report
    history: History
    progress: Progress
    seconds: float

    @property
    def metrics(self) -> dict[str, float]:
        """Validation metrics of the best epoch, by the names of objectives."""
        scores = self.report.metrics.scores.items()
        metrics = {f"val_{name}": float(score.value) for name, score in scores}
        loss = self.history.epochs["val_loss"][self.history.best_epoch - 1]
        return {**metrics, "val_loss": float(loss)}


class EnsembleHyperModel(keras_tuner.HyperModel):
    """Ensembles as a hypermodel: any tuner of KerasTuner can search over their settings.

    The features of the frozen branches are extracted and stored when the first model is
    built; every trial trains the layers after them.

    Args:
        config: Settings of the experiment.
        space: Dotted leaf to its values, as `search.spaces` has them, such as
            `{"training.learning_rate": {"log": [1e-5, 1e-2]}}`; None: as `config` has them.

    Raises:
        ConfigError: If a leaf is unknown, cannot vary or has values that are not valid.
    """

    def __init__(self, config: ExperimentConfig, space: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        if space is not None or not isinstance(config, SearchExperiment):
            settings = {**config.model_dump(mode="json"), "search": {"spaces": space or {}}}
            config = SearchExperiment.model_validate(settings)
        self.space = SearchSpace(config)
        self.feature_sets: list[FeatureSet] = []

    def prepare(self, check: Callable[[Mapping[str, Any]], object] = lambda _: None) -> None:
        """Reads the data and stores all features; `build` does so at its first call.

        Args:
            check: Called with a record of images, labels, weights and backend before
                features are extracted.

        Raises:
            UserError: If data, weights or the store cannot be used.
        """
        if not self.feature_sets:
            feature_sets = [FeatureSet(config) for config in self.space.feature_configs()]
            check(describe_origin(feature_sets))
            for feature_set in feature_sets:
                feature_set.fill()
            self.feature_sets = feature_sets

    def build(self, hp: keras_tuner.HyperParameters) -> keras.Model:
        """Builds the layers after the frozen branches, from features to class probabilities.

        Raises:
            UserError: If the hyperparameters do not go together, or as `prepare` does.
        """
        self.space.declare(hp)
        config, features = self.trial_of(hp)
        keras.utils.set_random_seed(config.seed)
        shapes = features.shapes([branch.label for branch in config.model.branches])
        return make_classifier(config.model, shapes, features.dataset.classes)

    def fit(
        self,
        hp: keras_tuner.HyperParameters,
        model: keras.Model,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        epochs: int | None = None,
        initial_epoch: int = 0,
        verbose: object = None,
    ) -> dict[str, float]:
        """Trains a model as its hyperparameters say, with early stopping.

        Args:
            hp: What the model was built with.
            model: From `build`.
            callbacks: Called in each epoch, and once more with the best epoch's weights.
            epochs: Instead of those in the settings; Hyperband sets it.
            initial_epoch: Number of them that the model has been trained for before.
            verbose: Ignored, as epochs are logged.

        Returns:
            Name to value of the validation metrics of the best epoch: "val_macro_f1",
            "val_accuracy", "val_loss" and the other objectives of a search.
        """
        length = None if epochs is None else epochs - initial_epoch
        result = self.train(hp, model, callbacks, length)
        for callback in callbacks:
            callback.on_epoch_end(result.history.best_epoch - 1, dict(result.metrics))
        return result.metrics

    def train(
        self,
        hp: keras_tuner.HyperParameters,
        model: keras.Model,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        epochs: int | None = None,
    ) -> TrialResult:
        """Trains and evaluates a model, as the first phase of `ensemble.train` does.

        Raises:
            ConfigError: If the training diverges.
            KeyboardInterrupt: If it is interrupted.
        """
        config, features = self.trial_of(hp)
        if epochs is not None:
            training = config.training.model_copy(update={"epochs": epochs})
            config = config.model_copy(update={"training": training})
        maps = features.load([branch.label for branch in config.model.branches])
        last: deque[Progress] = deque(maxlen=1)
        started = time.perf_counter()
        session = Session(save=last.append, callbacks=callbacks)
        history, probabilities = train_head(model, maps, features.images, config, session)
        seconds = time.perf_counter() - started
        if history.interrupted:
            raise KeyboardInterrupt
        validation = features.images.validation.readable
        temperature, probabilities = calibrate(
            validation.labels, probabilities, fit=config.training.calibrate
        )
        classes = features.dataset.classes
        training_counts = count_classes(features.images.train.readable, classes)
        report = Report(
            f"trial on {features.dataset.name}, validation",
            Predictions(classes, validation.names, validation.labels, probabilities),
            majority=majority_class(classes, training_counts),
            temperature=temperature,
            same_images=True,
            training=history.summary(),
        )
        return TrialResult(report, history, last[-1], seconds)

    def trial_of(self, hp: keras_tuner.HyperParameters) -> tuple[ExperimentConfig, FeatureSet]:
        """Returns the settings of a trial, with the weights of its branches, and its features.

        Raises:
            UserError: If the hyperparameters do not go together, or as `prepare` does.
        """
        self.prepare()
        config = self.space.config_of(self.space.values_of(hp))
        features = self.features_of(config)
        if isinstance(features.weights, str):
            model = config.model.model_copy(update={"weights": features.weights})
            config = config.model_copy(update={"model": model})
        return config, features

    def features_of(self, config: ExperimentConfig) -> FeatureSet:
        """Returns the features that a trial with these settings trains on.

        Raises:
            ConfigError: If there are none, as no branch can be built with these settings.
        """
        for features in self.feature_sets:
            if serves(features.config, config):
                return features
        raise ConfigError("No branch can be built with the settings of this trial.")
