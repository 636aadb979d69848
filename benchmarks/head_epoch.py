"""Seconds per epoch of a head on stored features, beside those of Keras's `fit` as it comes.

    python benchmarks/head_epoch.py
    python benchmarks/head_epoch.py --features 1536,9216 --batch-sizes 32,128 --rounds 3
    KERAS_BACKEND=jax python benchmarks/head_epoch.py

All train the same head (Dense 512 relu he_normal, BatchNorm, Dropout 0.2, softmax of 8
classes) on the same features in memory with Adam: `fit` with Keras's defaults on arrays,
`fit` on arrays with the fused Adam and 64 steps per execution, and `train_model`, which
also samples a view of each image. They take turns; figures are medians of the epochs
after the first of each turn, which compiles. `--seeds` trains from each seed on data
with something to learn, and prints the validation accuracy of the last epoch, which
should differ by no more than seeds do.
"""

import argparse
import time
from statistics import mean, median, stdev

import numpy as np
from machine import describe_machine

from configs.schema import TrainingConfig
from ensemble.cli.command_line import load_backend

load_backend()  # quietly, before anything imports Keras

import keras  # noqa: E402

from ensemble.data.batches import Examples  # noqa: E402
from ensemble.model.composition import build_classifier  # noqa: E402
from ensemble.model.optimizers import FusedAdam  # noqa: E402
from ensemble.training.targets import one_hot  # noqa: E402
from ensemble.training.trainer import train_model  # noqa: E402

_CLASSES = 8
_DISTANCE = 4  # between the centres of two classes, in deviations of the noise


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure an epoch of a head on stored features.")
    parser.add_argument("--images", type=int, default=15_000)
    parser.add_argument("--features", default="1536,9216", help="numbers of features per image")
    parser.add_argument("--batch-sizes", default="32,128")
    parser.add_argument("--epochs", type=int, default=3, help="timed in a turn, after the first")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=0, help="also compare accuracies over these")
    args = parser.parse_args()
    print(describe_machine())
    print(f"{keras.backend.backend()}, {args.images:,} images, seconds per epoch\n")
    print(f"features  batch  {'  '.join(f'{name:>11}' for name in _WAYS)}")
    for size in map(int, args.features.split(",")):
        train, validation = make_data(args.images, size, 0), make_data(args.images // 4, size, 1)
        for batch_size in map(int, args.batch_sizes.split(",")):
            config = TrainingConfig(batch_size=batch_size, epochs=1 + args.epochs, patience=1000)
            seconds = compare_speed(train, validation, config, args.rounds)
            columns = "  ".join(f"{seconds[name]:11.2f}" for name in _WAYS)
            print(f"{size:8}  {batch_size:5}  {columns}", flush=True)
            if args.seeds:
                print_accuracies(train, validation, config, args.seeds)


def compare_speed(
    train: Examples, validation: Examples, config: TrainingConfig, rounds: int
) -> dict[str, float]:
    """Returns the seconds per epoch of each way, validation aside."""
    seconds: dict[str, list[float]] = {name: [] for name in _WAYS}
    for seed in range(rounds):
        for name, run in _WAYS.items():
            timer = Timer()
            run(train, validation, config, seed, timer)
            seconds[name] += timer.seconds[1:]
    return {name: median(values) for name, values in seconds.items()}


def print_accuracies(
    train: Examples, validation: Examples, config: TrainingConfig, seeds: int
) -> None:
    """Prints mean and deviation of the last epoch's validation accuracy of each way."""
    for name, run in _WAYS.items():
        accuracies = [run(train, validation, config, seed, Timer()) for seed in range(seeds)]
        deviation = stdev(accuracies) if seeds > 1 else 0.0
        print(f"  accuracy, {name:11}  {mean(accuracies):.4f} +- {deviation:.4f}", flush=True)


def run_fit(
    train: Examples, validation: Examples, config: TrainingConfig, seed: int, timer: "Timer"
) -> float:
    """Trains by `fit` as it comes; returns the last epoch's validation accuracy."""
    keras.utils.set_random_seed(seed)
    model = build_head(train)
    model.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
    return _fit_arrays(model, (train, validation), config, timer)


def run_fused(
    train: Examples, validation: Examples, config: TrainingConfig, seed: int, timer: "Timer"
) -> float:
    """Trains by `fit` with the fused Adam and many steps per execution."""
    keras.utils.set_random_seed(seed)
    model = build_head(train)
    model.compile(
        FusedAdam(), "categorical_crossentropy", metrics=["accuracy"], steps_per_execution=64
    )
    return _fit_arrays(model, (train, validation), config, timer)


def run_ours(
    train: Examples, validation: Examples, config: TrainingConfig, seed: int, timer: "Timer"
) -> float:
    """Trains by `train_model`."""
    keras.utils.set_random_seed(seed)
    model = build_head(train)
    history = train_model(model, train, validation, config, seed=seed, callbacks=[timer])
    return history.epochs["val_accuracy"][-1]


_WAYS = {"fit": run_fit, "fit, fused": run_fused, "train_model": run_ours}


def build_head(data: Examples) -> keras.Model:
    """Returns the classifier of one branch of pooled features."""
    shapes = {name: values.shape[2:] for name, values in data.inputs.items()}
    return build_classifier(shapes, classes="abcdefgh"[:_CLASSES])


def make_data(images: int, size: int, seed: int) -> Examples:
    """Returns normally distributed features, each class around a centre of its own."""
    directions = np.random.default_rng(0).standard_normal((_CLASSES, size), "float32")
    centres = directions * np.float32(_DISTANCE / np.sqrt(2 * size))
    generator = np.random.default_rng([1, seed])
    labels = generator.integers(_CLASSES, size=images).astype("int32")
    values = generator.standard_normal((1, images, 1, 1, size), "float32")
    for row, label in enumerate(labels):
        values[0, row] += centres[label]
    return Examples({"features": values}, one_hot(labels, _CLASSES), np.ones(images, "float32"))


def _fit_arrays(
    model: keras.Model,
    data: tuple[Examples, Examples],
    config: TrainingConfig,
    timer: "Timer",
) -> float:
    (inputs, targets), held_out = (
        ({name: values[0] for name, values in part.inputs.items()}, part.targets) for part in data
    )
    history = model.fit(
        inputs,
        targets,
        batch_size=config.batch_size,
        epochs=config.epochs,
        validation_data=held_out,
        callbacks=[timer],
        verbose=0,
    )
    return history.history["val_accuracy"][-1]


class Timer(keras.callbacks.Callback):
    """Times each epoch up to its validation."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        self._start = time.perf_counter()

    def on_test_begin(self, logs: object = None) -> None:
        self.seconds.append(time.perf_counter() - self._start)


if __name__ == "__main__":
    main()
