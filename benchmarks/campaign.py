"""The study's whole campaign: 2 initializers, 3 rates and 5 epsilons for each of 2 backbones.

    python benchmarks/campaign.py --data ferplus_train.zip,ferplus_valid.zip \\
        --labels fer2013new.csv

The study's three tables are one search of `ensemble.search`, which begins with an empty
store: trainings of the dense head with early stopping, up to 50 epochs. Its time is that
of the whole command, from reading the images to the report of the best. What the naive
way would take for the 20 trainings, each epoch running the frozen branches on every
image again, is measured with Keras's `fit` and `evaluate` on a sample and scaled to the
images and epochs; and for the 16 different ones among them, which the search runs.
Backbones have random weights; the time does not depend on them.
"""

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
from machine import describe_machine

from configs.files import read_config
from configs.search import SearchExperiment
from ensemble.cli.command_line import load_backend

load_backend()  # quietly, before anything imports Keras

from ensemble.commands.search.spaces import SearchSpace  # noqa: E402
from ensemble.data.loading import Dataset, Split, load_dataset  # noqa: E402
from ensemble.data.reading import stream  # noqa: E402
from ensemble.data.registry import Location  # noqa: E402
from ensemble.model.composition import build_model  # noqa: E402

TABLES = ("table1_initializer", "table2_rate", "table3_epsilon")


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the study's campaign.")
    parser.add_argument("--data", required=True, help="paths with commas between")
    parser.add_argument("--labels", type=Path)
    parser.add_argument("--classes", default="neutral,happy,sad")
    parser.add_argument("--size", type=int, default=48, help="height and width in pixels")
    parser.add_argument("--images", type=int, default=15_000, help="for training, at most")
    args = parser.parse_args()
    print(describe_machine())
    dataset = load_dataset(
        Location(tuple(map(Path, args.data.split(","))), args.labels),
        classes=args.classes.split(","),
    )
    count = min(args.images, len(dataset.train))
    chosen = sorted(np.random.default_rng(0).permutation(len(dataset.train))[:count])
    train, validation = dataset.train.select(chosen), dataset.validation
    print(f"{count:,} training and {len(validation):,} validation images\n", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        manifest = write_manifest(Path(folder), dataset, train)
        started = time.perf_counter()
        epochs = search(args.data, manifest, args.size)
        total = time.perf_counter() - started
    print(f"{len(epochs)} trials, {sum(epochs.values())} epochs: {total:.1f} s", flush=True)

    naive = {}
    for label in dict.fromkeys(cell.branch for cell in epochs):
        per_step, per_look = naive_seconds(label, train, dataset.classes, args.size)
        naive[label] = per_step * count + per_look * len(validation)
        print(f"{label:20} {naive[label]:6.1f} s an epoch the naive way", flush=True)
    for cells in (list(study_cells()), list(epochs)):
        number = sum(epochs[cell] for cell in cells)
        seconds = sum(epochs[cell] * naive[cell.branch] for cell in cells)
        print(
            f"\n{len(cells)} trainings, {number} epochs: {seconds:,.0f} s the naive way, "
            f"ratio {seconds / total:.0f}"
        )


class Cell(NamedTuple):
    """What a figure of the study's tables was trained with."""

    branch: str
    initializer: str
    rate: float
    epsilon: float


def study_cells() -> Iterator[Cell]:
    """Yields what the 20 figures were trained with, 4 of them twice."""
    for table in TABLES:
        space = SearchSpace(SearchExperiment.model_validate(read_config(table)))
        for config in map(space.config_of, space.combinations()):
            yield Cell(
                config.model.branches[0].label,
                config.model.head.options.get("kernel_initializer", "he_normal"),
                config.training.learning_rate,
                config.training.epsilon,
            )


def write_manifest(folder: Path, dataset: Dataset, train: Split) -> Path:
    """Writes which images are for training, and which for validation."""
    path = folder / "manifest.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "split"])
        for name, split in (("train", train), ("val", dataset.validation)):
            writer.writerows(
                (image, dataset.classes[label], name)
                for image, label in zip(split.names, split.labels, strict=True)
            )
    return path


def search(data: str, manifest: Path, size: int) -> dict[Cell, int]:
    """Runs the search as a user does, and returns the epochs of each trial."""
    output = manifest.parent / "runs"
    command = [sys.executable, "-m", "ensemble.search", "--config", "study_tables"]
    command += ["--data", data, "--labels", str(manifest), "--weights", "random"]
    command += ["--image-size", str(size), "--views", "1", "--output", str(output)]
    environment = os.environ | {"ENSEMBLE_CACHE": str(manifest.parent / "store")}
    subprocess.run(command, env=environment, check=True, capture_output=True)
    (table,) = output.glob("*/trials.csv")
    with table.open(newline="", encoding="utf-8") as file:
        return {
            Cell(
                row["model.branches"],
                row["model.head.kernel_initializer"],
                float(row["training.learning_rate"]),
                float(row["training.epsilon"]),
            ): int(row["epochs"])
            for row in csv.DictReader(file)
        }


def naive_seconds(
    label: str, split: Split, classes: tuple[str, ...], size: int
) -> tuple[float, float]:
    """Returns seconds for an image in training and in validation, its branch run every time."""
    ensemble = build_model([label], classes=classes, image_size=size, weights="random")
    sample = split.select(range(min(512, len(split))))
    pixels = np.concatenate([batch for _, batch in stream(sample, size, batch_size=64)])
    pixels = pixels.astype("float32")
    ensemble.model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])

    def run(work) -> float:
        work()  # compiles
        times = []
        for _ in range(5):
            started = time.perf_counter()
            work()
            times.append(time.perf_counter() - started)
        return median(times) / len(pixels)

    return (
        run(lambda: ensemble.model.fit(pixels, sample.labels, batch_size=32, verbose=0)),
        run(lambda: ensemble.model.evaluate(pixels, sample.labels, verbose=0)),
    )


if __name__ == "__main__":
    main()
