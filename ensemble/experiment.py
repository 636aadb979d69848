"""An experiment from its settings to its run folder: data, features, training, report."""

import csv
import hashlib
import io
import json
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import keras
import numpy as np

from branches.weights import file_checksum, weights_checksum
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
from ensemble.pipeline import Inspection, inspect
from ensemble.plots import plot_curves, png
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
    run.write("split.csv", _split_csv(dataset, train, validation))
    run.write("environment.json", _as_json(_record(config, extractor, train, validation)))

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
    run.write("history.csv", history.as_csv())
    curves = plot_curves(history.epochs, history.best_epoch, f"Training of {run.name}")
    run.write("curves.png", png(curves))

    report = judge(
        f"{run.name} on {dataset.name}, validation",
        dataset.classes,
        validation.readable,
        predict_features(ensemble.classifier, validation_features),
        training_counts=_counts(train.readable, dataset.classes),
        training=history.summary(),
        facts=_facts(config, dataset, train, validation, ensemble),
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
        run.write("bad_images.csv", _as_csv(["path", "reason"], rows))
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


def _record(
    config: ExperimentConfig, extractor: keras.Model, train: Inspection, validation: Inspection
) -> dict[str, Any]:
    """Returns what the result depends on beside the settings, ready for JSON."""
    return {
        **describe_environment(),
        "seed": config.seed,
        "weights": {
            branch.label: _weights_record(
                config.model.weights_of(branch.label), extractor.get_layer(branch.layer_name)
            )
            for branch in config.model.branches
        },
        "data": {
            "train": _data_record(train),
            "validation": _data_record(validation),
        },
    }


def _weights_record(source: str, branch: keras.Model) -> dict[str, str]:
    record = {"source": source, "sha256": weights_checksum(branch)}
    if source not in {"imagenet", "random"}:
        record["file_sha256"] = file_checksum(source)
    return record


def _data_record(inspection: Inspection) -> dict[str, Any]:
    """Returns a fingerprint of images and labels that does not depend on their names."""
    split = inspection.readable
    rows = sorted(
        digest + int(label).to_bytes(4, "big")
        for digest, label in zip(inspection.digests, split.labels, strict=True)
    )
    return {"images": len(split), "sha256": hashlib.sha256(b"".join(rows)).hexdigest()}


def _facts(
    config: ExperimentConfig,
    dataset: Dataset,
    train: Inspection,
    validation: Inspection,
    ensemble: MultiBranchModel,
) -> dict[str, str]:
    model = config.model
    trained = sum(int(np.prod(weight.shape)) for weight in ensemble.classifier.trainable_weights)
    weights = {model.weights_of(branch.label) for branch in model.branches}
    return {
        "Data": f"{dataset.name}, {len(train.readable)} training and "
        f"{len(validation.readable)} validation images",
        "Image size": f"{config.data.image_size} x {config.data.image_size} pixels",
        "Views": f"{config.data.views} of each training image",
        "Branches": ", ".join(branch.label for branch in model.branches),
        "Weights": ", ".join(sorted(weights)),
        "Fusion and head": f"{model.fusion}, {model.head.name}",
        "Parameters": f"{ensemble.model.count_params():,}, of them {trained:,} trained",
        "Seed": str(config.seed),
    }


def _counts(split: Split, classes: Sequence[str]) -> list[int]:
    return np.bincount(split.labels, minlength=len(classes)).tolist()


def _split_csv(dataset: Dataset, train: Inspection, validation: Inspection) -> str:
    """Returns the split as a manifest, which `--labels` reads again."""
    parts = {"train": train.readable, "validation": validation.readable, "test": dataset.test}
    rows = (
        (name, dataset.classes[label], part, group or "", float(weight))
        for part, split in parts.items()
        if split is not None
        for name, label, group, weight in zip(
            split.names, split.labels, split.groups, split.weights, strict=True
        )
    )
    return _as_csv(["path", "label", "split", "group", "weight"], rows)


def _as_csv(header: Sequence[str], rows: Iterator[tuple[Any, ...]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def _as_json(record: dict[str, Any]) -> str:
    return json.dumps(record, indent=2, ensure_ascii=False) + "\n"
