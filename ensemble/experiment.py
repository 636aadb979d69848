"""An experiment from its settings to its run folder: data, features, training, report."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
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
from ensemble.data.leakage import REPEAT_COLUMNS, repeat_rows
from ensemble.data.loading import Dataset, Split
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
from ensemble.training.phases import make_classifier, train_phases
from ensemble.training.tracking import tracking

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FitResult:
    """What a training came to.

    Args:
        run: The folder that holds everything.
        ensemble: The trained model, with the weights of the best epoch.
        report: Its answers on the validation split.
        history: Its epochs.
    """

    run: Run
    ensemble: MultiBranchModel
    report: Report
    history: History

    def summary(self) -> str:
        """Returns the last screen: what came out and where it lies."""
        history = self.history
        lines = [
            summarize(self.report),
            f"best epoch {history.best_epoch} of {len(history)}, by {history.monitor}",
            f"{self.run.folder}/ holds model.keras, report.md, curves.png, confusion.png and more",
        ]
        if history.interrupted:
            lines.append(
                "stopped before its end: python -m ensemble.train --resume "
                f"{self.run.folder} goes on from epoch {len(history) + 1}"
            )
        return "\n".join(lines)


def fit(
    config: ExperimentConfig,
    *,
    begun: Callable[[Mapping[str, Any]], Progress | None] | None = None,
    read: tuple[Dataset, Images] | None = None,
) -> FitResult:
    """Trains an ensemble as its settings say and writes a run folder.

    Args:
        config: The settings.
        begun: Gets the record of what the training starts from, data and weights, before it
            starts; may return how far it has come elsewhere, to go on from there.
        read: What these settings' data are, where they have been read already.

    Raises:
        UserError: If data, weights, stored features or the run folder cannot be used.
        KeyboardInterrupt: If it is interrupted before its first epoch has ended. Later
            it ends politely, and the history says so.
    """
    distribution = distribute(config.training)
    if distribution.writes:
        Run.check_name(config)
    dataset, images = read or (read_dataset(config.data, config.seed), None)
    extractor, model = build_frozen(config, dataset)
    config = config.model_copy(update={"model": model})
    branches = "+".join(branch.layer_name for branch in model.branches)
    run = Run.create(config, f"{dataset.name}-{branches}", writes=distribution.writes)
    with _at_work_in(run), tracking(config, run) as trackers:
        return _fit(run, config, dataset, images, extractor, None, distribution, trackers, begun)


def resume(folder: str | Path, config: ExperimentConfig | None = None) -> FitResult:
    """Goes on with a run that was broken off, from its last finished epoch.

    On a CPU it ends as it would have ended uninterrupted. Images that were added to the data
    after its first epoch are not used.

    Args:
        folder: The run's folder.
        config: Its settings, with another folder of stored features, say; None:
            as they are kept in the run.

    Raises:
        RunError: If there is no such run, another process trains it, it has come to its end,
            or its images have changed.
        UserError: As `fit` does.
    """
    run = Run.unfinished(folder)
    config = config or run.config
    distribution = distribute(config.training)
    run = Run(folder, writes=distribution.writes)
    with _at_work_in(run), tracking(config, run) as trackers:
        progress = read_checkpoint(run)
        dataset, images = (
            read_recorded_images(run, config.data)
            if progress
            else (read_dataset(config.data, config.seed), None)
        )
        extractor, _ = build_frozen(config, dataset)
        log.info("going on after epoch %d", len(progress.history) if progress else 0)
        return _fit(run, config, dataset, images, extractor, progress, distribution, trackers)


@contextmanager
def _at_work_in(run: Run) -> Iterator[None]:
    """Keeps messages in a run's log, and other processes out of the run, for a `with` block.

    Raises:
        RunError: If another process trains the run.
    """
    try:
        lock = locked(run.folder / "lock", timeout=0) if run.writes else nullcontext()
        with lock, run.logging():
            yield
    except LockedError as error:
        raise RunError(
            f"{run.folder} is being trained by {error}. Wait for its end, or train anew with "
            f"--config {run.folder / 'config.yaml'}."
        ) from error


def _fit(
    run: Run,
    config: ExperimentConfig,
    dataset: Dataset,
    images: Images | None,
    extractor: keras.Model,
    progress: Progress | None,
    distribution: Distribution,
    trackers: Sequence[keras.callbacks.Callback],
    begun: Callable[[Mapping[str, Any]], Progress | None] | None = None,
) -> FitResult:
    log_start(config, dataset)
    size = config.data.image_size
    images = images or inspect_dataset(dataset, config.data)
    _tell_flaws(run, images)
    check_readable(dataset, images)
    if progress is None:
        run.write_table("split.csv", SPLIT_COLUMNS, split_rows(dataset.classes, images))
        run.write("samples.png", png(_plot_samples(dataset, images.train.readable, size)))
        record = _describe(config, extractor, images)
        run.write_json("environment.json", record)
        progress = begun(record) if begun else None
        if progress is not None:
            write_checkpoint(run, progress)
    else:
        record = _read_record(run, images)

    keras.utils.set_random_seed(config.seed)
    classifier = make_classifier(config.model, feature_shapes(extractor), dataset.classes)
    ensemble = compose(extractor, classifier, dataset.classes)
    with notice_loss(distribution):
        trained = train_phases(
            ensemble,
            images,
            config,
            progress=progress,
            keep=partial(write_checkpoint, run) if run.writes else None,
            trackers=trackers,
            distribution=distribution,
        )
    history = trained.history
    log.info("trained for %.0f s", sum(history.epochs["seconds"]))
    record["features"] = trained.features
    run.write_json("environment.json", record)
    validation = images.validation.readable
    temperature, probabilities = calibrate(
        validation.labels, trained.probabilities, fit=config.training.calibrate
    )
    ensemble = ensemble.with_temperature(temperature)
    save_model(run, ensemble, record, data=dataset.name)
    run.write_table("history.csv", ["epoch", "phase", *history.epochs], history.rows())
    counts = count_classes(images.train.readable, dataset.classes)
    report = Report(
        f"{run.name} on {dataset.name}, validation",
        Predictions(dataset.classes, validation.names, validation.labels, probabilities),
        majority=majority_class(dataset.classes, counts),
        temperature=temperature,
        same_images=True,
        training=history.summary(),
        facts=describe_experiment(config, dataset, images, ensemble),
        problems=images.problems,
    )
    write_report(run, report, validation, size)
    run.write("card.md", write_card(config, report))
    if not history.interrupted:
        remove_checkpoint(run)
    return FitResult(run, ensemble, report, history)


def _describe(config: ExperimentConfig, extractor: keras.Model, images: Images) -> dict[str, Any]:
    return {
        **describe_environment(),
        "seed": config.seed,
        "weights": record_weights(config.model, extractor),
        "data": record_data(images),
    }


def _read_record(run: Run, images: Images) -> dict[str, Any]:
    """Returns what was recorded when a run was begun, which must have been with these images."""
    record = run.read_json("environment.json")
    if not same_data(record.get("data", {}), record_data(images)):
        raise RunError(
            f"The images, labels, weights or votes are no longer those that {run.folder} was "
            f"begun with. Put them back, or train anew with --config {run.folder / 'config.yaml'}."
        )
    return record


def _tell_flaws(run: Run, images: Images) -> None:
    """Lists what cannot be used in `bad_images.csv`, and leaks in `duplicates.csv`."""
    if images.problems:
        rows = ((problem.name, problem.reason) for problem in images.problems)
        path = run.write_table("bad_images.csv", ["path", "reason"], rows)
        log_problems(images.problems, f"; all are in {path}")
    if images.repeats:
        path = run.write_table("duplicates.csv", REPEAT_COLUMNS, repeat_rows(images.repeats))
        log_duplicates(images, f"; all are in {path}")


def _plot_samples(dataset: Dataset, split: Split, image_size: int) -> Figure:
    """Draws some training images of each class, as the branches see them."""
    images = {}
    for label, name in enumerate(dataset.classes):
        members = np.flatnonzero(split.labels == label)
        spread = members[np.linspace(0, len(members) - 1, MAX_IMAGES).astype(int)]
        images[name] = [read_image(split, index, image_size) for index in np.unique(spread)]
    return plot_contact_sheet(images, f"Training images of {dataset.name}")
