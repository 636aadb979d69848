"""An experiment from its settings to its run folder: data, features, training, report."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
from matplotlib.figure import Figure

from configs.errors import RunError
from configs.schema import ExperimentConfig
from ensemble.data.inspection import (
    Images,
    check_readable,
    count_classes,
    inspect_dataset,
    log_duplicates,
    log_problems,
)
from ensemble.data.leakage import DUPLICATE_COLUMNS, duplicate_rows
from ensemble.data.loading import Dataset
from ensemble.data.reading import read_image
from ensemble.faces.store import read_dataset
from ensemble.features.extraction import build_frozen, log_start
from ensemble.metrics.calibration import calibrate
from ensemble.metrics.card import write_card
from ensemble.metrics.evaluating import write_report
from ensemble.metrics.metrics import majority_class
from ensemble.metrics.predictions import Predictions
from ensemble.metrics.report import Report
from ensemble.metrics.report_sections import summarize
from ensemble.model.composition import MultiBranchModel, compose, feature_shapes
from ensemble.plots.figures import png
from ensemble.plots.pictures import MAX_IMAGES, plot_contact_sheet
from ensemble.runs.environment import describe_environment
from ensemble.runs.recorded_split import read_recorded_images
from ensemble.runs.records import (
    SPLIT_COLUMNS,
    describe_experiment,
    record_data,
    record_weights,
    save_model,
    split_rows,
)
from ensemble.runs.reproduction import same_data
from ensemble.runs.run import Run
from ensemble.system.locks import LockedError, locked
from ensemble.training.checkpoint import read_checkpoint, remove_checkpoint, write_checkpoint
from ensemble.training.cluster import distribute, notice_loss
from ensemble.training.distribution import Distribution
from ensemble.training.history import History, Progress
from ensemble.training.phase import Session
from ensemble.training.phases import make_classifier, train_phases
from ensemble.training.tracking import tracking

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FitResult:
    """Result of a training.

    Args:
        run: The folder that holds everything.
        ensemble: The trained model, with the weights of the best epoch.
        report: Its evaluation on the validation split.
        history: Its epochs.
    """

    run: Run
    ensemble: MultiBranchModel
    report: Report
    history: History

    def summary(self) -> str:
        """Returns the lines that end a training on the screen."""
        history = self.history
        lines = [
            summarize(self.report),
            f"best epoch {history.best_epoch} of {len(history)}, by {history.monitor}",
            f"{self.run.folder}/ holds model.keras, report.md, curves.png, confusion.png and more",
        ]
        if history.interrupted:
            lines.append(
                f"interrupted: resume from epoch {len(history) + 1} with "
                f"python -m ensemble.train --resume {self.run.folder}"
            )
        return "\n".join(lines)


def fit(
    config: ExperimentConfig,
    *,
    begun: Callable[[Mapping[str, Any]], Progress | None] | None = None,
    read: tuple[Dataset, Images] | None = None,
) -> FitResult:
    """Trains an ensemble with the given settings and writes a run folder.

    Args:
        config: The settings.
        begun: Called with the record of data and weights before the training starts; may
            return the state of the same training elsewhere, to continue from.
        read: The data of these settings, if they have been read already.

    Raises:
        UserError: If data, weights, stored features or the run folder cannot be used.
        KeyboardInterrupt: If it is interrupted before the end of its first epoch. Later
            it ends politely, and the history records it.
    """
    distribution = distribute(config.training)
    if distribution.writes:
        Run.check_name(config)
    dataset, images = read or (read_dataset(config.data, config.seed), None)
    extractor, model = build_frozen(config, dataset)
    config = config.model_copy(update={"model": model})
    branches = "+".join(branch.layer_name for branch in model.branches)
    run = Run.create(config, f"{dataset.name}-{branches}", writes=distribution.writes)
    with _working_in(run, config, distribution) as session:
        images = _inspect(run, config, dataset, images)
        experiment = _Experiment(run, config, dataset, images, extractor)
        record = experiment.record_start()
        progress = begun(record) if begun else None
        if progress is not None:
            write_checkpoint(run, progress)
        return experiment.train(record, replace(session, resume=progress))


def resume(folder: str | Path, config: ExperimentConfig | None = None) -> FitResult:
    """Resumes an interrupted run from its last finished epoch.

    On a CPU it ends as it would have ended uninterrupted. Images that were added to the data
    after its first epoch are not used.

    Args:
        folder: The run's folder.
        config: Its settings, for example with another folder of stored features; None:
            as they are kept in the run.

    Raises:
        RunError: If there is no such run, another process trains it, it is finished, or its
            images have changed.
        UserError: As `fit` does.
    """
    run = Run.unfinished(folder)
    config = config or run.config
    distribution = distribute(config.training)
    run = Run(folder, writes=distribution.writes)
    with _working_in(run, config, distribution) as session:
        progress = read_checkpoint(run)
        dataset, images = (
            read_recorded_images(run, config.data)
            if progress
            else (read_dataset(config.data, config.seed), None)
        )
        extractor, _ = build_frozen(config, dataset)
        log.info("resuming after epoch %d", len(progress.history) if progress else 0)
        images = _inspect(run, config, dataset, images)
        experiment = _Experiment(run, config, dataset, images, extractor)
        record = _read_record(run, images) if progress else experiment.record_start()
        return experiment.train(record, replace(session, resume=progress))


@contextmanager
def _working_in(
    run: Run, config: ExperimentConfig, distribution: Distribution
) -> Iterator[Session]:
    """Locks a run, logs to its folder and opens its trackers, for a `with` block.

    Raises:
        RunError: If another process trains the run.
    """
    try:
        lock = locked(run.folder / "lock", timeout=0) if run.writes else nullcontext()
        with lock, run.logging(), tracking(config, run) as trackers:
            save = partial(write_checkpoint, run) if run.writes else None
            yield Session(save=save, callbacks=trackers, distribution=distribution)
    except LockedError as error:
        raise RunError(
            f"{run.folder} is being trained by {error}. Wait for its end, or train anew with "
            f"--config {run.folder / 'config.yaml'}."
        ) from error


def _inspect(run: Run, config: ExperimentConfig, dataset: Dataset, images: Images | None) -> Images:
    """Checks all images; lists the unusable ones in `bad_images.csv`, leaks in `duplicates.csv`."""
    log_start(config, dataset)
    images = images or inspect_dataset(dataset, config.data)
    if images.problems:
        rows = ((problem.name, problem.reason) for problem in images.problems)
        path = run.write_table("bad_images.csv", ["path", "reason"], rows)
        log_problems(images.problems, f"; all are in {path}")
    if images.duplicates:
        path = run.write_table(
            "duplicates.csv", DUPLICATE_COLUMNS, duplicate_rows(images.duplicates)
        )
        log_duplicates(images, f"; all are in {path}")
    check_readable(dataset, images)
    return images


def _read_record(run: Run, images: Images) -> dict[str, Any]:
    """Returns the record of a run's start, which must have been with these images."""
    record = run.read_json("environment.json")
    if not same_data(record.get("data", {}), record_data(images)):
        raise RunError(
            f"The images, labels, weights or votes are no longer those that {run.folder} was "
            f"begun with. Put them back, or train anew with --config {run.folder / 'config.yaml'}."
        )
    return record


@dataclass(frozen=True)
class _Experiment:
    """Everything that a training starts from, and the training itself."""

    run: Run
    config: ExperimentConfig
    dataset: Dataset
    images: Images
    extractor: keras.Model

    def record_start(self) -> dict[str, Any]:
        """Writes the split, sample images and the record of everything a result depends on."""
        self.run.write_table(
            "split.csv", SPLIT_COLUMNS, split_rows(self.dataset.classes, self.images)
        )
        self.run.write("samples.png", png(self._plot_samples()))
        record = {
            **describe_environment(),
            "seed": self.config.seed,
            "weights": record_weights(self.config.model, self.extractor),
            "data": record_data(self.images),
        }
        self.run.write_json("environment.json", record)
        return record

    def train(self, record: dict[str, Any], session: Session) -> FitResult:
        """Trains the phases, evaluates the model and writes its run."""
        keras.utils.set_random_seed(self.config.seed)
        shapes = feature_shapes(self.extractor)
        classifier = make_classifier(self.config.model, shapes, self.dataset.classes)
        ensemble = compose(self.extractor, classifier, self.dataset.classes)
        with notice_loss(session.distribution):
            trained = train_phases(ensemble, self.images, self.config, session)
        history = trained.history
        log.info("trained for %.0f s", sum(history.epochs["seconds"]))
        record["features"] = trained.features
        self.run.write_json("environment.json", record)

        validation = self.images.validation.readable
        temperature, probabilities = calibrate(
            validation.labels, trained.probabilities, fit=self.config.training.calibrate
        )
        ensemble = ensemble.with_temperature(temperature)
        save_model(self.run, ensemble, record, data=self.dataset.name)
        self.run.write_table("history.csv", ["epoch", "phase", *history.epochs], history.rows())
        counts = count_classes(self.images.train.readable, self.dataset.classes)
        report = Report(
            f"{self.run.name} on {self.dataset.name}, validation",
            Predictions(self.dataset.classes, validation.names, validation.labels, probabilities),
            majority=majority_class(self.dataset.classes, counts),
            temperature=temperature,
            same_images=True,
            training=history.summary(),
            facts=describe_experiment(self.config, self.dataset, self.images, ensemble),
            problems=self.images.problems,
        )
        write_report(self.run, report, validation, self.config.data.image_size)
        self.run.write("card.md", write_card(self.config, report))
        if not history.interrupted:
            remove_checkpoint(self.run)
        return FitResult(self.run, ensemble, report, history)

    def _plot_samples(self) -> Figure:
        """Plots some training images of each class, as the branches see them."""
        split, size, images = self.images.train.readable, self.config.data.image_size, {}
        for label, name in enumerate(self.dataset.classes):
            members = np.flatnonzero(split.labels == label)
            spread = members[np.linspace(0, len(members) - 1, MAX_IMAGES).astype(int)]
            images[name] = [read_image(split, index, size) for index in np.unique(spread)]
        return plot_contact_sheet(images, f"Training images of {self.dataset.name}")
