"""The study's whole campaign: 2 initializers, 3 rates and 5 epsilons for each of 2 backbones.

    python benchmarks/campaign.py --data ferplus_train.zip,ferplus_valid.zip \\
        --labels fer2013new.csv --classes neutral,happy,sad

Each of the 20 settings trains the dense head with early stopping, up to 50 epochs,
on features that are extracted once into an empty store. What the naive way would
take, each epoch running the frozen branches on every image again, is measured with
Keras's `fit` on a sample and scaled to the images and epochs of each setting.
Backbones have random weights; the time does not depend on them.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from machine import describe_machine

from ensemble.cli import load_backend

load_backend()  # quietly, before anything imports Keras

import keras  # noqa: E402

from configs.schema import TrainingConfig  # noqa: E402
from ensemble.datasets.loading import load_dataset  # noqa: E402
from ensemble.datasets.registry import Location  # noqa: E402
from ensemble.features.frozen_branch import FrozenBranch  # noqa: E402
from ensemble.features.store import FeatureStore  # noqa: E402
from ensemble.images.pipeline import Inspection, inspect, stream  # noqa: E402
from ensemble.images.views import View  # noqa: E402
from ensemble.model import (  # noqa: E402
    MultiBranchModel,
    build_classifier,
    build_model,
    feature_shapes,
)
from ensemble.training.batches import Examples  # noqa: E402
from ensemble.training.targets import one_hot  # noqa: E402
from ensemble.training.trainer import train_model  # noqa: E402

BRANCHES = ("vgg16", "densenet121")
SETTINGS = [
    *({"initializer": name} for name in ("he_normal", "glorot_uniform")),
    *({"learning_rate": rate} for rate in (1e-3, 1e-4, 1e-5)),
    *({"learning_rate": 1e-5, "epsilon": epsilon} for epsilon in (1, 0.1, 1e-4, 1e-7, 1e-8)),
]


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the study's campaign.")
    parser.add_argument("--data", required=True, help="paths with commas between")
    parser.add_argument("--labels", type=Path)
    parser.add_argument("--classes", default="neutral,happy,sad")
    parser.add_argument("--size", type=int, default=48, help="height and width in pixels")
    parser.add_argument("--images", type=int, default=15_000, help="for training, at most")
    parser.add_argument("--views", type=int, default=1, help="of each training image")
    parser.add_argument("--epochs", type=int, default=50, help="at most")
    args = parser.parse_args()
    print(describe_machine())
    dataset = load_dataset(
        Location(tuple(map(Path, args.data.split(","))), args.labels),
        classes=args.classes.split(","),
    )
    count = min(args.images, len(dataset.train))
    chosen = np.random.default_rng(0).permutation(len(dataset.train))[:count]
    train = inspect(dataset.train.select(chosen), args.size)
    validation = inspect(dataset.validation, args.size)
    print(f"{count:,} training and {len(dataset.validation):,} validation images")

    extraction = training = naive = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for label in BRANCHES:
            ensemble = build_model(
                [label], classes=dataset.classes, image_size=args.size, weights="random"
            )
            branch = FrozenBranch(ensemble.extractor, label, FeatureStore(Path(folder)))
            views = [View(n, 10, True, 1) for n in range(args.views)]
            started = time.perf_counter()
            features = load(branch, label, train, views)
            watched = load(branch, label, validation, views[:1])
            extraction += time.perf_counter() - started
            per_step, per_look = naive_seconds(ensemble, train)
            for setting in SETTINGS:
                started = time.perf_counter()
                epochs = train_head(ensemble, dataset.classes, features, watched, setting, args)
                seconds = time.perf_counter() - started
                training += seconds
                naive += epochs * (per_step * count + per_look * len(dataset.validation))
                print(f"{label:12} {setting!s:48} {epochs:3} epochs {seconds:7.1f} s", flush=True)
    print(f"extraction {extraction:,.0f} s, training {training:,.0f} s")
    print(f"the naive way {naive:,.0f} s (measured on a sample and scaled)")
    print(f"ratio {naive / (extraction + training):.0f}")


def load(branch: FrozenBranch, label: str, found: Inspection, views: list[View]) -> Examples:
    features = branch.load(found.readable, found.digests, views)
    split = found.readable
    return Examples({label: features}, one_hot(split.labels, 3), split.weights)


def train_head(
    ensemble: MultiBranchModel,
    classes: tuple[str, ...],
    train: Examples,
    validation: Examples,
    setting: dict,
    args: argparse.Namespace,
) -> int:
    """Trains a head of its own and returns the number of epochs it took."""
    options = dict(setting)
    initializer = options.pop("initializer", "he_normal")
    keras.utils.set_random_seed(1)
    classifier = build_classifier(
        feature_shapes(ensemble.extractor),
        classes=classes,
        head_options={"kernel_initializer": initializer},
    )
    config = TrainingConfig(epochs=args.epochs, **options)
    history = train_model(classifier, train, validation, config, seed=1)
    return len(history.epochs["loss"])


def naive_seconds(ensemble: MultiBranchModel, found: Inspection) -> tuple[float, float]:
    """Returns seconds for an image in training and in validation, its branch run every time."""
    sample = found.readable.select(range(min(512, len(found.readable))))
    size = ensemble.image_size
    pixels = np.concatenate([batch for _, batch in stream(sample, size, batch_size=64)])
    pixels = pixels.astype("float32")
    ensemble.model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])

    def run(work) -> float:
        work()  # compiles
        started = time.perf_counter()
        work()
        return (time.perf_counter() - started) / len(pixels)

    return (
        run(lambda: ensemble.model.fit(pixels, sample.labels, batch_size=32, verbose=0)),
        run(lambda: ensemble.model.evaluate(pixels, sample.labels, verbose=0)),
    )


if __name__ == "__main__":
    main()
