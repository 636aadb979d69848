"""Trials: a head trained on stored features, which all trials of a search share."""

import logging
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import keras
import numpy as np

from configs.errors import ConfigError, UserError
from configs.schema import ExperimentConfig
from ensemble.commands.search.forks import Forks
from ensemble.commands.search.leader import drop_beaten, keep_if_best
from ensemble.commands.search.spaces import SearchSpace, serves
from ensemble.commands.search.study import Study, TrialRecord, trial_settings
from ensemble.data.inspection import (
    Images,
    check_readable,
    count_classes,
    inspect_dataset,
    log_duplicates,
    log_problems,
)
from ensemble.data.loading import Dataset
from ensemble.data.views import training_views
from ensemble.faces.store import read_dataset
from ensemble.features.arrays import fits_memory
from ensemble.features.extraction import (
    build_frozen,
    describe_branch,
    fill_branches,
    freeze_branches,
    log_start,
)
from ensemble.features.frozen_branch import read_features
from ensemble.features.store import BranchKey, FeatureStore
from ensemble.metrics.calibration import calibrate
from ensemble.metrics.evaluating import write_results
from ensemble.metrics.metrics import majority_class
from ensemble.metrics.predictions import Predictions
from ensemble.metrics.report import Report
from ensemble.runs.records import record_data, record_weights
from ensemble.runs.run import Run
from ensemble.system.devices import has_gpu
from ensemble.training.history import History, Progress
from ensemble.training.phases import make_classifier, train_head

log = logging.getLogger(__name__)

Maps = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Filled:
    """What a child process tells of the features that it stored.

    Args:
        keys: Branch label to what decides its features.
        weights: Where the branches' weights came from in the end.
        origins: Branch label to a record of its weights.
        lines: What was extracted, for the screen.
        on_gpu: Whether the backend sees a GPU.
    """

    keys: Mapping[str, BranchKey]
    weights: str | dict[str, str]
    origins: Mapping[str, Mapping[str, str]]
    lines: Sequence[str]
    on_gpu: bool


class Source(NamedTuple):
    """What features are extracted from.

    Args:
        config: Settings, with all branches that a trial may have.
        dataset: The data.
        images: Its images that can be read.
    """

    config: ExperimentConfig
    dataset: Dataset
    images: Images


class Stock:
    """The stored features that trials of the same data, seed and fusion read.

    Args:
        config: Settings, with all branches that a trial may have.
        dataset: The data.
        images: Its images that can be read.
        filled: What is stored.
    """

    def __init__(
        self, config: ExperimentConfig, dataset: Dataset, images: Images, filled: Filled
    ) -> None:
        self.config = config
        self.dataset = dataset
        self.images = images
        self.filled = filled
        self._maps: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self._data = record_data(images)

    @classmethod
    def fill(cls, source: Source, forks: Forks) -> "Stock":
        """Has all features of a dataset stored, in a child that alone starts the backend.

        Raises:
            UserError: If weights or the store cannot be used.
        """
        filled = forks.call(lambda: _fill(*source))
        for line in filled.lines:
            log.info("%s", line)
        return cls(*source, filled)

    def load(self, labels: Sequence[str]) -> tuple[Maps, Maps]:
        """Returns the features of training views and of validation images, read once."""
        views = training_views(self.config.data, self.config.seed)
        store = FeatureStore(self.config.features.directory)
        for name in labels:
            if name not in self._maps:
                key = self.filled.keys[name]
                self._maps[name] = (
                    read_features(store, key, self.images.train.digests, views),
                    read_features(store, key, self.images.validation.digests, views[:1]),
                )
        maps = {name: self._maps[name] for name in labels}
        return (
            {name: train for name, (train, _) in maps.items()},
            {name: validation for name, (_, validation) in maps.items()},
        )

    def unload(self) -> None:
        """Lets go of the features."""
        self._maps.clear()

    def origin(self, labels: Sequence[str]) -> dict[str, Any]:
        """Returns a record of what a training of some branches starts from."""
        return {
            "backend": keras.config.backend(),
            "data": self._data,
            "weights": {name: self.filled.origins[name] for name in labels},
        }

    @property
    def byte_count(self) -> int:
        """How many bytes all features take in memory."""
        views, images = self.config.data.views, self.images
        count = views * len(images.train.readable) + len(images.validation.readable)
        return sum(key.image_bytes * count for key in self.filled.keys.values())


class Bench:
    """Everything that trials read, loaded as far as the memory goes.

    Args:
        stocks: For each set of settings that decides the features.
    """

    def __init__(self, stocks: Sequence[Stock]) -> None:
        self.stocks = stocks

    @classmethod
    def prepare(cls, space: SearchSpace, study: Study, forks: Forks) -> "Bench":
        """Extracts what is missing for all trials, and loads it.

        Raises:
            UserError: If data, weights or the store cannot be used, or the data are not
                those that the search was begun with.
        """
        sources = read_sources(space)
        study.check_data(record_sources(sources))
        bench = cls([Stock.fill(source, forks) for source in sources])
        for stock in bench.stocks:
            if fits_memory(stock.byte_count):  # else it is loaded by each child that needs it
                stock.load(list(stock.filled.keys))
        return bench

    @property
    def on_gpu(self) -> bool:
        """Whether the backend sees a GPU."""
        return any(stock.filled.on_gpu for stock in self.stocks)

    def unload(self) -> None:
        """Lets go of the features."""
        for stock in self.stocks:
            stock.unload()

    def read_for(self, config: ExperimentConfig) -> tuple[Dataset, Images]:
        """Returns the data that a trial with these settings learned from."""
        stock = self.stock_of(config)
        return stock.dataset, stock.images

    def stock_of(self, config: ExperimentConfig) -> Stock:
        """Returns the features that a trial with these settings reads.

        Raises:
            ConfigError: If there are none, since no branch can be built that way.
        """
        for stock in self.stocks:
            if serves(stock.config, config):
                return stock
        raise ConfigError("No features are stored for a trial with these settings.")


def read_sources(space: SearchSpace) -> list[Source]:
    """Reads and inspects the data of each set of features that trials need.

    Raises:
        DataError: If data cannot be used.
    """
    return [_read_source(config) for config in space.feature_configs()]


def record_sources(sources: Sequence[Source]) -> list[dict[str, Any]]:
    """Returns fingerprints of the images and labels of each set of features."""
    return [record_data(source.images) for source in sources]


def run_trial(
    bench: Bench, space: SearchSpace, study: Study, number: int, values: Mapping[str, Any]
) -> TrialRecord:
    """Runs a trial and keeps all that came of it, or returns what it came to before.

    The result is that of the first phase of `ensemble.train` with the same
    settings. A trial that fails is recorded with its reason.

    Args:
        bench: The features.
        space: Makes the trial's settings.
        study: Where to keep it.
        number: Of the trial.
        values: Dotted leaf to its value.

    Raises:
        KeyboardInterrupt: If it is interrupted; nothing is kept then.
    """
    known = study.read(number)
    if known is not None and dict(known.values) == dict(values):
        return known
    started = time.perf_counter()
    record = TrialRecord(number, "failed", values)
    folder = study.trial(number)
    try:
        with _logging_to(folder):
            record, training = _train(bench, space, study, record)
    except Exception as error:
        log.debug("trial %d failed", number, exc_info=True)
        training = 0.0
        reason = str(error).strip().splitlines() or [""]
        kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        record = replace(record, reason=f"{kind}{reason[0]}")
    seconds = time.perf_counter() - started
    record = replace(record, seconds=seconds, overhead=seconds - training)
    study.write(record)
    drop_beaten(study, space.config.search.objective)
    return record


def _train(
    bench: Bench, space: SearchSpace, study: Study, record: TrialRecord
) -> tuple[TrialRecord, float]:
    """Returns what a trial came to, and the seconds that its training took."""
    folder = study.trial(record.number)
    config = space.config_of(record.values)
    stock = bench.stock_of(config)
    labels = [branch.label for branch in config.model.branches]
    if isinstance(stock.filled.weights, str):
        model = config.model.model_copy(update={"weights": stock.filled.weights})
        config = config.model_copy(update={"model": model})
    folder.write("config.yaml", trial_settings(config))
    maps, validation_maps = stock.load(labels)

    keras.utils.set_random_seed(config.seed)
    shapes = {name: stock.filled.keys[name].shape for name in labels}
    classifier = make_classifier(config.model, shapes, stock.dataset.classes)
    started = time.perf_counter()
    progress: deque[Progress] = deque(maxlen=1)
    history, probabilities = train_head(
        classifier, maps, validation_maps, stock.images, config, keep=progress.append
    )
    training = time.perf_counter() - started
    if history.interrupted:
        raise KeyboardInterrupt

    validation = stock.images.validation.readable
    temperature, probabilities = calibrate(
        validation.labels, probabilities, fit=config.training.calibrate
    )
    classes = stock.dataset.classes
    report = Report(
        f"trial {record.number:04} on {stock.dataset.name}, validation",
        Predictions(classes, validation.names, validation.labels, probabilities),
        majority=majority_class(classes, count_classes(stock.images.train.readable, classes)),
        temperature=temperature,
        same_images=True,
        training=history.summary(),
    )
    metrics = {f"val_{name}": score.value for name, score in report.metrics.scores.items()}
    metrics["val_loss"] = history.epochs["val_loss"][history.best_epoch - 1]
    objective = space.config.search.objective
    if objective not in metrics:
        raise ConfigError(
            f"The objective {objective} is not defined for {len(classes)} classes. Choose another."
        )
    folder.write_table("history.csv", ["epoch", "phase", *history.epochs], history.rows())
    write_results(folder, report)
    record = _completed(record, metrics, history)
    keep_if_best(study, objective, record, progress[-1], stock.origin(labels))
    return record, training


def _completed(record: TrialRecord, metrics: Mapping[str, float], history: History) -> TrialRecord:
    return replace(
        record,
        status="completed",
        metrics={name: float(value) for name, value in metrics.items()},
        epochs=len(history),
        best_epoch=history.best_epoch,
        history={name: list(map(float, values)) for name, values in history.epochs.items()},
    )


def _logging_to(folder: Run) -> Any:
    folder.folder.mkdir(parents=True, exist_ok=True)
    return folder.logging()


def _read_source(config: ExperimentConfig) -> Source:
    dataset = read_dataset(config.data, config.seed)
    images = inspect_dataset(dataset, config.data)
    log_problems(images.problems, "")
    log_duplicates(images, "")
    check_readable(dataset, images)
    return Source(config, dataset, images)


def _fill(config: ExperimentConfig, dataset: Dataset, images: Images) -> Filled:
    log_start(config, dataset)
    extractor, model = build_frozen(config, dataset)
    branches = freeze_branches(extractor, model, config.features)
    fill_branches(branches, images, config)
    return Filled(
        {branch.label: branch.key for branch in branches},
        model.weights,
        record_weights(model, extractor),
        [describe_branch(branch) for branch in branches],
        has_gpu(),
    )
