"""An experiment from its settings to its run folder: data, features, training, report."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import keras
import numpy as np
from matplotlib.figure import Figure

from configs.errors import DataError, WeightsError
from configs.schema import ExperimentConfig, ModelConfig
from ensemble.augment import augmented_view
from ensemble.datasets.loading import Dataset, Split
from ensemble.environment import describe_environment, list_devices
from ensemble.evaluation import judge, read_dataset, write_report
from ensemble.features import LabelledFeatures, extract
from ensemble.model import (
    MultiBranchModel,
    build_classifier,
    build_extractor,
    compose,
    feature_shapes,
)
from ensemble.pipeline import Inspection, inspect, read_image
from ensemble.plots import MOST_IMAGES, plot_contact_sheet, plot_curves, png
from ensemble.records import (
    SPLIT_COLUMNS,
    describe_experiment,
    record_data,
    record_weights,
    split_rows,
)
from ensemble.report import Report
from ensemble.run import Run
from ensemble.training import predict_features, train_classifier

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FitResult:
    """What a training came to.

    Args:
        run: The folder that holds everything.
        ensemble: The trained model, with the weights of the best epoch.
        report: Its answers on the validation split.
    """

    run: Run
    ensemble: MultiBranchModel
    report: Report

    def summary(self) -> str:
        """Returns the last screen: what came out and where it lies."""
        training = self.report.training
        assert training is not None
        return (
            f"{self.report.summary()}\n"
            f"best epoch {training.best_epoch} of {training.epochs}, by {training.monitor}\n"
            f"{self.run.folder}/ holds model.keras, report.md, curves.png, confusion.png and more"
        )


def fit(config: ExperimentConfig) -> FitResult:
    """Trains an ensemble as its settings say and writes a run folder.

    Raises:
        UserError: If data, weights or the run folder cannot be used.
    """
    Run.refuse_taken(config)
    dataset = read_dataset(config.data, config.seed)
    extractor, model = _build_extractor(config, dataset)
    config = config.model_copy(update={"model": model})
    branches = "+".join(branch.layer_name for branch in model.branches)
    run = Run.create(config, f"{dataset.name}-{branches}")
    with run.logging():
        return _fit(run, config, dataset, extractor)


def _fit(run: Run, config: ExperimentConfig, dataset: Dataset, extractor: keras.Model) -> FitResult:
    _tell_start(config, dataset)
    train, validation = _inspect(run, config, dataset)
    run.write_table("split.csv", SPLIT_COLUMNS, split_rows(dataset, train, validation))
    run.write_json(
        "environment.json",
        {
            **describe_environment(),
            "seed": config.seed,
            "weights": record_weights(config.model, extractor),
            "data": {"train": record_data(train), "validation": record_data(validation)},
        },
    )

    run.write("samples.png", png(_plot_samples(train.readable, dataset, config.data.image_size)))

    started = time.perf_counter()
    features, validation_features = _extract(extractor, train, validation, config)
    log.info("features extracted in %.0f s", time.perf_counter() - started)

    keras.utils.set_random_seed(config.seed)
    ensemble = compose(extractor, _build_classifier(config.model, extractor, dataset.classes))
    history = train_classifier(
        ensemble.classifier, features, validation_features, config.training, seed=config.seed
    )
    log.info("trained for %.0f s", sum(history.epochs["seconds"]))
    run.save("model.keras", ensemble.model.save)
    run.write_table("history.csv", ["epoch", *history.epochs], history.rows())
    curves = plot_curves(history.epochs, history.best_epoch, f"Training of {run.name}")
    run.write("curves.png", png(curves))

    report = judge(
        f"{run.name} on {dataset.name}, validation",
        dataset.classes,
        validation.readable,
        predict_features(ensemble.classifier, validation_features),
        training_counts=_counts(train.readable, dataset.classes),
        training=history.summary(),
        facts=describe_experiment(config, dataset, train, validation, ensemble),
        problems=[*dataset.problems, *train.problems, *validation.problems],
    )
    write_report(run, report, validation.readable, config.data.image_size)
    return FitResult(run, ensemble, report)


def _build_extractor(config: ExperimentConfig, dataset: Dataset) -> tuple[keras.Model, ModelConfig]:
    """Builds the extractor; drawn images may do with random weights, and it is told."""
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


def _build_classifier(
    model: ModelConfig, extractor: keras.Model, classes: Sequence[str]
) -> keras.Model:
    return build_classifier(
        feature_shapes(extractor),
        classes=classes,
        fusion=model.fusion,
        standardize=model.standardize,
        head=model.head.name,
        head_options=model.head.options,
    )


def _inspect(run: Run, config: ExperimentConfig, dataset: Dataset) -> tuple[Inspection, Inspection]:
    """Reads every image once and lists those that cannot be used in `bad_images.csv`."""
    size = config.data.image_size
    train = inspect(dataset.train, size, label="Reading training images")
    validation = inspect(dataset.validation, size, label="Reading validation images")
    problems = [*dataset.problems, *train.problems, *validation.problems]
    if problems:
        rows = ((problem.name, problem.reason) for problem in problems)
        run.write_table("bad_images.csv", ["path", "reason"], rows)
        log.warning(
            "%d images or rows are left out, such as %s (%s); all are in %s",
            len(problems),
            problems[0].name,
            problems[0].reason,
            run.folder / "bad_images.csv",
        )
    for split, inspection in (("training", train), ("validation", validation)):
        for name, count in zip(
            dataset.classes, _counts(inspection.readable, dataset.classes), strict=True
        ):
            if not count and (split == "training" or not len(inspection.readable)):
                raise DataError(
                    f"Class {name!r} has no {split} image that can be read. "
                    f"See {run.folder / 'bad_images.csv'}, and mend or replace the images."
                )
    return train, validation


def _extract(
    extractor: keras.Model, train: Inspection, validation: Inspection, config: ExperimentConfig
) -> tuple[LabelledFeatures, LabelledFeatures]:
    augment = config.data.augment
    make_view = partial(
        augmented_view,
        rotation=augment.rotation,
        horizontal_flip=augment.horizontal_flip,
        seed=config.seed,
    )

    def labelled(inspection: Inspection, views: int, label: str) -> LabelledFeatures:
        split = inspection.readable
        features = extract(
            extractor, split, inspection.digests, views=views, make_view=make_view, label=label
        )
        return LabelledFeatures(features, split.labels, split.weights)

    return (
        labelled(train, config.data.views, "Extracting training features"),
        labelled(validation, 1, "Extracting validation features"),
    )


def _plot_samples(split: Split, dataset: Dataset, image_size: int) -> Figure:
    """Draws some training images of each class, as the branches see them."""
    images = {}
    for label, name in enumerate(dataset.classes):
        members = np.flatnonzero(split.labels == label)
        spread = members[np.linspace(0, len(members) - 1, MOST_IMAGES).astype(int)]
        images[name] = [read_image(split, index, image_size) for index in np.unique(spread)]
    return plot_contact_sheet(images, f"Training images of {dataset.name}")


def _tell_start(config: ExperimentConfig, dataset: Dataset) -> None:
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
        ", ".join(list_devices()) or "an unknown device",
        keras.config.backend(),
    )


def _counts(split: Split, classes: Sequence[str]) -> list[int]:
    return np.bincount(split.labels, minlength=len(classes)).tolist()
