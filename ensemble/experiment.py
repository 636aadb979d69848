"""An experiment from its settings to its run folder: data, features, training, report."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np
from matplotlib.figure import Figure

from configs.schema import ExperimentConfig, ModelConfig
from ensemble.batches import LabelledFeatures
from ensemble.datasets.loading import Dataset, Split
from ensemble.environment import describe_environment
from ensemble.evaluation import judge, write_report
from ensemble.features import FrozenBranch
from ensemble.model import MultiBranchModel, build_classifier, compose, feature_shapes
from ensemble.pipeline import read_image
from ensemble.plots import MOST_IMAGES, plot_contact_sheet, plot_curves, png
from ensemble.preparation import (
    Images,
    build_frozen,
    count_classes,
    freeze_branches,
    inspect_dataset,
    read_dataset,
    refuse_unreadable,
    tell_branch,
    tell_problems,
    tell_start,
    training_views,
)
from ensemble.records import (
    SPLIT_COLUMNS,
    describe_experiment,
    record_data,
    record_features,
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
        UserError: If data, weights, stored features or the run folder cannot be used.
    """
    Run.refuse_taken(config)
    dataset = read_dataset(config.data, config.seed)
    extractor, model = build_frozen(config, dataset)
    config = config.model_copy(update={"model": model})
    branches = "+".join(branch.layer_name for branch in model.branches)
    run = Run.create(config, f"{dataset.name}-{branches}")
    with run.logging():
        return _fit(run, config, dataset, extractor)


def _fit(run: Run, config: ExperimentConfig, dataset: Dataset, extractor: keras.Model) -> FitResult:
    tell_start(config, dataset)
    images = _inspect(run, dataset, config.data.image_size)
    train, validation = images.train.readable, images.validation.readable
    run.write_table("split.csv", SPLIT_COLUMNS, split_rows(dataset, images))
    run.write("samples.png", png(_plot_samples(train, dataset, config.data.image_size)))

    branches = freeze_branches(extractor, config.model, config.features)
    features, validation_features = _load_features(branches, images, config)
    run.write_json(
        "environment.json",
        {
            **describe_environment(),
            "seed": config.seed,
            "weights": record_weights(config.model, extractor),
            "features": record_features(branches),
            "data": {
                "train": record_data(images.train),
                "validation": record_data(images.validation),
            },
        },
    )

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
        validation,
        predict_features(ensemble.classifier, validation_features),
        training_counts=count_classes(train, dataset.classes),
        training=history.summary(),
        facts=describe_experiment(config, dataset, images, ensemble),
        problems=images.problems,
    )
    write_report(run, report, validation, config.data.image_size)
    return FitResult(run, ensemble, report)


def _inspect(run: Run, dataset: Dataset, image_size: int) -> Images:
    """Lists the images that cannot be used in `bad_images.csv`."""
    images = inspect_dataset(dataset, image_size)
    if images.problems:
        rows = ((problem.name, problem.reason) for problem in images.problems)
        path = run.write_table("bad_images.csv", ["path", "reason"], rows)
        tell_problems(images.problems, f"; all are in {path}")
    refuse_unreadable(dataset, images)
    return images


def _load_features(
    branches: Sequence[FrozenBranch], images: Images, config: ExperimentConfig
) -> tuple[LabelledFeatures, LabelledFeatures]:
    """Returns the features of all training views and of the validation images."""
    started = time.perf_counter()
    views = training_views(config.data, config.seed)
    train, validation = {}, {}
    for branch in branches:
        train[branch.label] = branch.load(images.train.readable, images.train.digests, views)
        validation[branch.label] = branch.load(
            images.validation.readable, images.validation.digests, views[:1]
        )
        log.info("%s", tell_branch(branch))
    log.info("features had in %.0f s", time.perf_counter() - started)
    return (
        LabelledFeatures(train, images.train.readable.labels, images.train.readable.weights),
        LabelledFeatures(
            validation, images.validation.readable.labels, images.validation.readable.weights
        ),
    )


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


def _plot_samples(split: Split, dataset: Dataset, image_size: int) -> Figure:
    """Draws some training images of each class, as the branches see them."""
    images = {}
    for label, name in enumerate(dataset.classes):
        members = np.flatnonzero(split.labels == label)
        spread = members[np.linspace(0, len(members) - 1, MOST_IMAGES).astype(int)]
        images[name] = [read_image(split, index, image_size) for index in np.unique(spread)]
    return plot_contact_sheet(images, f"Training images of {dataset.name}")
