"""What drawing augmented images costs, by four ways side by side.

    python benchmarks/augmentation.py
    python benchmarks/augmentation.py --branch densenet121 --size 96
    KERAS_BACKEND=jax python benchmarks/augmentation.py

First, images a second of a block: Keras's layers run eagerly, the same layers as
`Augmentation` runs them (compiled where the backend does so), and one affine warp. Then
what a step of fine-tuning costs, all weights of a branch learning: on images as they
are, with the layers inside the model, and what `Augmentation` takes for its batch. All
take turns; figures are medians.
"""

import argparse
import time
from collections.abc import Callable, Iterable, Mapping
from statistics import median
from typing import Any

import numpy as np
from machine import describe_machine

from ensemble.cli.command_line import load_backend

load_backend()  # quietly, before anything imports Keras

import keras  # noqa: E402

from branches import build_branch  # noqa: E402
from configs.schema import AugmentConfig  # noqa: E402
from ensemble.data.views import augmented_view  # noqa: E402
from ensemble.training.augmentation import Augmentation, make_layers  # noqa: E402

_CLASSES = 8
_BATCH = 32
_STUDY = {"rotation": 10.0, "horizontal_flip": True}
_MOVES = {**_STUDY, "translation": 0.1, "zoom": 0.1, "brightness": 0.2, "contrast": 0.2}
_SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "flip and rotation": _STUDY,
    "all": {**_MOVES, "erasing": 0.3, "mixup": 0.2, "cutmix": 1.0},
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the augmentation of training images.")
    parser.add_argument("--branch", default="vgg16")
    parser.add_argument("--size", type=int, default=48, help="height and width in pixels")
    parser.add_argument("--images", type=int, default=512, help="in a block")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    print(describe_machine())
    print(f"{keras.backend.backend()}, {args.size} pixels, median of {args.rounds} rounds\n")
    images, targets = make_data(args.images, args.size)
    print(f"images/s of a block of {args.images}")
    for name, settings in _SETTINGS.items():
        for way, seconds in compare_blocks(images, targets, settings, args.rounds).items():
            print(f"  {name:18} {way:22} {args.images / seconds:9,.0f}", flush=True)
    print(f"\nms of a step of {args.branch}, {_BATCH} images")
    for way, seconds in compare_steps(
        args.branch, images[:_BATCH], targets[:_BATCH], args.rounds
    ).items():
        print(f"  {way:41} {1000 * seconds:9.1f}", flush=True)


def compare_blocks(
    images: np.ndarray, targets: np.ndarray, settings: Mapping[str, Any], rounds: int
) -> dict[str, float]:
    """Returns the seconds that each way takes for a block."""
    augmentation = Augmentation(AugmentConfig(**settings))
    layers = list(make_layers(AugmentConfig(**settings)))
    digests = [number.to_bytes(8, "big") for number in range(len(images))]

    def run_eagerly() -> None:
        moved = keras.ops.convert_to_tensor(images.astype("float32"))
        for layer in layers:
            moved = layer(moved, training=True)
        keras.ops.convert_to_numpy(moved)

    return take_turns(
        {
            "layers, eager": run_eagerly,
            "Augmentation": lambda: augmentation(images, targets, 1),
            "one affine warp": lambda: augmented_view(images, digests, 1, seed=1, **_STUDY),
        },
        rounds,
    )


def compare_steps(
    branch: str, images: np.ndarray, targets: np.ndarray, rounds: int
) -> dict[str, float]:
    """Returns the seconds that a step of fine-tuning takes, and the augmentation of its batch."""
    pixels = images.astype("float32")

    def make_step(layers: Iterable[Any], jit: bool) -> Callable[[], object]:
        model = build_model(branch, pixels.shape[1:], layers)
        model.compile("adam", "categorical_crossentropy", jit_compile=jit)
        return lambda: model.train_on_batch(pixels, targets)

    def make_draw(settings: Mapping[str, Any]) -> Callable[[], object]:
        augmentation = Augmentation(AugmentConfig(**settings))
        return lambda: augmentation(images, targets, 1)

    inside = {
        f"step, {name} inside": make_step(make_layers(AugmentConfig(**settings)), False)
        for name, settings in _SETTINGS.items()
    }
    beside = {
        f"Augmentation of a batch, {name}": make_draw(settings)
        for name, settings in _SETTINGS.items()
    }
    plain = {"step": make_step([], False), "step, jit": make_step([], True)}
    return take_turns({**plain, **inside, **beside}, rounds)


def build_model(branch: str, shape: tuple[int, ...], first: Iterable[Any]) -> keras.Model:
    """Returns a branch that learns, after layers and before a softmax."""
    image = keras.Input(shape)
    moved: Any = image
    for layer in first:
        moved = layer(moved)
    maps = build_branch(branch, input_shape=shape, weights="random")(moved)
    pooled = keras.layers.GlobalAveragePooling2D()(maps)
    return keras.Model(image, keras.layers.Dense(_CLASSES, activation="softmax")(pooled))


def make_data(images: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns random images and targets."""
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (images, size, size, 3), dtype=np.uint8)
    return pixels, np.eye(_CLASSES, dtype="float32")[generator.integers(_CLASSES, size=images)]


def take_turns(ways: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Returns the median seconds of each way, after a first turn that compiles."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(1 + rounds):
        for name, run in ways.items():
            started = time.perf_counter()
            run()
            if turn:
                seconds[name].append(time.perf_counter() - started)
    return {name: median(values) for name, values in seconds.items()}


if __name__ == "__main__":
    main()
