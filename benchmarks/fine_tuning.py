"""What fine-tuning costs beside a bare `keras.Model.fit`, and whether its memory grows.

    python benchmarks/fine_tuning.py
    python benchmarks/fine_tuning.py --branches vgg16 --unfreeze all --images 256

Both train the same two branches with the same stages thawed, on the same images in
memory, in batches of 32, and judge the same validation images after each epoch; ours
draws every image anew and writes a checkpoint beside. They take turns, some epochs
each; figures are medians of the epochs after the first of each turn, which compiles.
Memory is what the process holds after each of 20 epochs on few images.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
from machine import describe_machine, resident

from configs.schema import ExperimentConfig
from ensemble.cli.command_line import load_backend

load_backend()  # quietly, before anything imports Keras

import keras  # noqa: E402

from ensemble.data.batches import Examples  # noqa: E402
from ensemble.data.synthetic_faces import EXPRESSIONS, draw_face  # noqa: E402
from ensemble.model.composition import MultiBranchModel, build_model  # noqa: E402
from ensemble.runs.run import Run  # noqa: E402
from ensemble.training.checkpoint import write_checkpoint  # noqa: E402
from ensemble.training.fine_tuning import fine_tune, named_input, unfreeze_branches  # noqa: E402
from ensemble.training.history import Progress  # noqa: E402
from ensemble.training.phase import Session  # noqa: E402
from ensemble.training.targets import one_hot  # noqa: E402

_VALIDATION = 64  # images


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure fine-tuning beside Keras's fit.")
    parser.add_argument("--branches", default="vgg16,densenet121")
    parser.add_argument("--unfreeze", default="vgg16:block5,densenet121:conv5")
    parser.add_argument("--images", type=int, default=320)
    parser.add_argument("--size", type=int, default=48, help="height and width in pixels")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=3, help="in a turn, the first is not timed")
    args = parser.parse_args()
    print(f"{describe_machine()}; {keras.backend.backend()}")
    compare_speed(args)
    watch_memory(args)


def compare_speed(args: argparse.Namespace) -> None:
    """Prints seconds an epoch of `fit` and of ours, and their ratio."""
    train, validation = draw(args.images, args.size), draw(_VALIDATION, args.size)
    fit, ours = [], []
    for _ in range(args.rounds):
        fit += time_fit(settings(args), train, validation)[1:]
        ours += time_ours(settings(args), train, validation)[1:]
    print(
        f"{args.branches}, {args.unfreeze} unfrozen, {args.images} images of {args.size} pixels, "
        f"{len(fit)} epochs each:\n"
        f"  fit {median(fit):.2f} s an epoch, ours {median(ours):.2f} s, "
        f"ours / fit {median(ours) / median(fit):.3f}",
        flush=True,
    )


def watch_memory(args: argparse.Namespace) -> None:
    """Prints what the process holds after the 3rd and the last of 20 epochs."""
    args.epochs = 20
    examples, held = draw(64, args.size), []
    time_ours(settings(args), examples, examples, lambda _: held.append(resident()))
    print(f"  memory after epoch 3: {held[2]:.0f} MB, after epoch 20: {held[-1]:.0f} MB")


def settings(args: argparse.Namespace) -> ExperimentConfig:
    return ExperimentConfig.model_validate(
        {
            "data": {"image_size": args.size},
            "model": {"branches": args.branches, "weights": "random"},
            "training": {
                "unfreeze": args.unfreeze,
                "patience": 1000,
                "fine_tuning": {"epochs": args.epochs},
            },
        }
    )


def build(config: ExperimentConfig) -> MultiBranchModel:
    keras.utils.set_random_seed(1)
    return build_model(
        [branch.label for branch in config.model.branches],
        classes=EXPRESSIONS,
        image_size=config.data.image_size,
        weights="random",
    )


def draw(images: int, size: int) -> Examples:
    """Returns drawn faces of all expressions."""
    labels = np.arange(images) % len(EXPRESSIONS)
    faces = [
        draw_face(EXPRESSIONS[label], np.random.default_rng(number), size)
        for number, label in enumerate(labels)
    ]
    return Examples(
        {"image": np.stack(faces)[None]},
        one_hot(labels, len(EXPRESSIONS)),
        np.ones(images, "float32"),
    )


class Watch(keras.callbacks.Callback):
    """Notes the seconds of each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        self._start = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: object = None) -> None:
        self.seconds.append(time.perf_counter() - self._start)


def time_fit(config: ExperimentConfig, train: Examples, validation: Examples) -> list[float]:
    ensemble = build(config)
    unfreeze_branches(ensemble, config)
    model = named_input(ensemble)
    model.compile(
        keras.optimizers.Adam(config.training.fine_tuning.learning_rate),
        "categorical_crossentropy",
        metrics=["accuracy"],
    )
    (images, held_out), watch = (
        ({"image": data.inputs["image"][0].astype("float32")} for data in (train, validation)),
        Watch(),
    )
    model.fit(
        images,
        train.targets,
        batch_size=config.training.batch_size,
        epochs=config.training.fine_tuning.epochs,
        validation_data=(held_out, validation.targets),
        callbacks=[watch],
        verbose=0,
    )
    return watch.seconds


def time_ours(
    config: ExperimentConfig,
    train: Examples,
    validation: Examples,
    notice: Callable[[Progress], object] = lambda _: None,
) -> list[float]:
    with tempfile.TemporaryDirectory() as folder:
        run, watch = Run(Path(folder)), Watch()

        def save(progress: Progress) -> None:
            write_checkpoint(run, progress)
            notice(progress)

        fine_tune(build(config), (train, validation), config, Session(save=save, callbacks=[watch]))
    return watch.seconds


if __name__ == "__main__":
    main()
