"""Epochs after the first: the head on stored features against frozen branches at every step.

    python benchmarks/epochs.py

The naive way is Keras's `fit` of the whole model, its branches frozen, as the study
did it: each epoch runs every branch on every image again. Both train the same head
for the same number of epochs on the same drawn faces; figures are medians over the
epochs after the first.
"""

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
from machine import describe_machine

from ensemble.cli.command_line import load_backend

load_backend()  # quietly, before anything imports Keras

import keras  # noqa: E402

from configs.schema import TrainingConfig  # noqa: E402
from ensemble.data.batches import Examples  # noqa: E402
from ensemble.data.loading import Split  # noqa: E402
from ensemble.data.reading import inspect, stream  # noqa: E402
from ensemble.data.synthetic_faces import EXPRESSIONS, draw_face  # noqa: E402
from ensemble.data.views import View  # noqa: E402
from ensemble.features.frozen_branch import FrozenBranch  # noqa: E402
from ensemble.features.store import FeatureStore  # noqa: E402
from ensemble.model.composition import build_model  # noqa: E402
from ensemble.training.targets import one_hot  # noqa: E402
from ensemble.training.trainer import train_model  # noqa: E402


class Timer(keras.callbacks.Callback):
    """Times epochs, validation included."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def on_epoch_begin(self, epoch, logs=None) -> None:
        self._start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None) -> None:
        self.seconds.append(time.perf_counter() - self._start)


class Faces:
    """Drawn faces, decided by their names."""

    def read(self, name: str) -> np.ndarray:
        number = int(name)
        return draw_face(EXPRESSIONS[number % 8], np.random.default_rng(number))


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure epochs on stored features.")
    parser.add_argument("--branches", default="vgg16,densenet121")
    parser.add_argument("--size", type=int, default=48, help="height and width in pixels")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=4)
    args = parser.parse_args()
    print(describe_machine())
    labels = np.arange(args.images, dtype=np.int32) % 8
    ones = np.ones(args.images, np.float32)
    names = tuple(map(str, range(args.images)))
    found = inspect(Split(Faces(), names, labels, ones, (None,) * args.images), args.size)
    ensemble = build_model(
        args.branches.split(","), classes=EXPRESSIONS, image_size=args.size, weights="random"
    )
    with tempfile.TemporaryDirectory() as folder:
        store = FeatureStore(Path(folder))
        inputs = {
            label: FrozenBranch(ensemble.extractor, label, store).load(
                found.readable, found.digests, [View()]
            )
            for label in args.branches.split(",")
        }
        features = Examples(inputs, one_hot(labels, 8), ones)
        config = TrainingConfig(epochs=args.epochs, patience=args.epochs)
        history = train_model(ensemble.classifier, features, features, config, seed=1)
    stored = median(history.epochs["seconds"][1:])

    pixels = np.concatenate(
        [batch for _, batch in stream(found.readable, args.size, batch_size=64)]
    )
    timer = Timer()
    ensemble.model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    ensemble.model.fit(
        pixels,
        labels,
        batch_size=32,
        validation_data=(pixels, labels),
        epochs=args.epochs,
        callbacks=[timer],
        verbose=0,
    )
    naive = median(timer.seconds[1:])
    print(f"frozen branches at every step  {naive:8.2f} s an epoch")
    print(f"stored features                {stored:8.3f} s an epoch")
    print(f"ratio                          {naive / stored:8.1f}")


if __name__ == "__main__":
    main()
