"""How fast a head trains on stored features: one epoch against that of `keras.Model.fit`.

    python benchmarks/head_epoch.py
    python benchmarks/head_epoch.py --features 1536 --epochs 10 --seeds 5
    KERAS_BACKEND=jax python benchmarks/head_epoch.py

Both train the same head (Dense 512 relu he_normal, BatchNorm, Dropout 0.2, softmax
of 8 classes) on the same arrays in memory, in batches of 32 with Adam; `fit` runs
with Keras's defaults. They take turns, an epoch each, so that whatever else the
machine does meets both; figures are medians of the epochs after the first, which
compiles. `--seeds` trains both from each seed on data with something to learn, and
prints the validation accuracy of the last epoch, which should differ by no more
than seeds do.
"""

import argparse
import time
from collections.abc import Callable
from statistics import mean, median, stdev

import numpy as np
from machine import describe_machine

from configs.schema import TrainingConfig
from ensemble.cli.command_line import load_backend

load_backend()  # quietly, before anything imports Keras

import keras  # noqa: E402

from ensemble.data.batches import (  # noqa: E402
    Examples,
    draw_order,
    read_blocks,
)
from ensemble.model.composition import build_classifier  # noqa: E402
from ensemble.model.optimizers import FusedAdam  # noqa: E402
from ensemble.training.loops import training_loop  # noqa: E402
from ensemble.training.targets import one_hot  # noqa: E402
from ensemble.training.trainer import train_model  # noqa: E402

_CLASSES = 8
_BATCH = 32
_DISTANCE = 4  # between the centres of two classes, in deviations of the noise


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure an epoch of a head on stored features.")
    parser.add_argument("--images", type=int, default=15_000)
    parser.add_argument("--features", default="1536,13824", help="numbers of each image")
    parser.add_argument("--epochs", type=int, default=3, help="timed, after the first")
    parser.add_argument("--seeds", type=int, default=0, help="also compare accuracies over these")
    args = parser.parse_args()
    print(describe_machine())
    print(f"{keras.backend.backend()}, {args.images:,} images, median of {args.epochs} epochs\n")
    sizes = [int(size) for size in args.features.split(",")]
    print("features  fit, s an epoch  loop, s an epoch  fit / loop")
    for size in sizes:
        fit, loop = compare_speed(args.images, size, args.epochs)
        print(f"{size:8}  {fit:15.2f}  {loop:16.2f}  {fit / loop:10.2f}", flush=True)
    if args.seeds:
        print(f"\nfeatures  validation accuracy after {args.epochs} epochs, {args.seeds} seeds")
        for size in sizes:
            for name, accuracies in compare_accuracy(
                args.images, size, args.epochs, args.seeds
            ).items():
                deviation = stdev(accuracies) if len(accuracies) > 1 else 0
                print(f"{size:8}  {name:4}  {mean(accuracies):.4f} +- {deviation:.4f}", flush=True)


def compare_speed(images: int, size: int, epochs: int) -> tuple[float, float]:
    """Returns the seconds of an epoch, by `fit` and by the loop."""
    data = make_data(images, size, seed=0)
    model = build_head(size)
    model.compile(FusedAdam(), "categorical_crossentropy", metrics=["accuracy"])
    run = training_loop(model)

    def run_epoch(epoch: int) -> None:
        model.reset_metrics()
        order = draw_order(data, seed=0, epoch=epoch)
        run(read_blocks(data, order, batch_size=_BATCH))
        float(model.get_metrics_result()["loss"])

    turns = _Turns(run_epoch)
    plain = build_head(size)
    plain.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    plain.fit(
        {name: values[0] for name, values in data.inputs.items()},
        data.targets.argmax(axis=1),
        batch_size=_BATCH,
        epochs=1 + epochs,
        callbacks=[turns],
        verbose=0,
    )
    return median(turns.of_fit[1:]), median(turns.of_other[1:])


def compare_accuracy(images: int, size: int, epochs: int, seeds: int) -> dict[str, list[float]]:
    """Returns the last epoch's validation accuracy for each seed, by `fit` and by the loop."""
    train, validation = make_data(images, size, seed=0), make_data(images // 4, size, seed=1)
    accuracies: dict[str, list[float]] = {"fit": [], "loop": []}
    for seed in range(1, 1 + seeds):
        keras.utils.set_random_seed(seed)
        plain = build_head(size)
        plain.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        history = plain.fit(
            {name: values[0] for name, values in train.inputs.items()},
            train.targets.argmax(axis=1),
            batch_size=_BATCH,
            epochs=epochs,
            validation_data=(
                {name: values[0] for name, values in validation.inputs.items()},
                validation.targets.argmax(axis=1),
            ),
            verbose=0,
        )
        accuracies["fit"].append(history.history["val_accuracy"][-1])

        keras.utils.set_random_seed(seed)
        config = TrainingConfig(batch_size=_BATCH, epochs=epochs, patience=epochs)
        history = train_model(build_head(size), train, validation, config, seed=seed)
        accuracies["loop"].append(history.epochs["val_accuracy"][-1])
    return accuracies


def build_head(size: int) -> keras.Model:
    """Returns the classifier of one branch of pooled features."""
    return build_classifier({"features": (1, 1, size)}, classes="abcdefgh"[:_CLASSES])


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


class _Turns(keras.callbacks.Callback):
    """Times each epoch of `fit`, and after it an epoch of something else."""

    def __init__(self, other: Callable[[int], None]) -> None:
        super().__init__()
        self._other = other
        self.of_fit: list[float] = []
        self.of_other: list[float] = []

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        self._start = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: object = None) -> None:
        middle = time.perf_counter()
        self._other(epoch)
        self.of_fit.append(middle - self._start)
        self.of_other.append(time.perf_counter() - middle)


if __name__ == "__main__":
    main()
