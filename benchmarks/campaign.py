"""The study's whole campaign: 2 initializers, 3 rates and 5 epsilons for each of 2 backbones.

    python benchmarks/campaign.py --data ferplus_train.zip,ferplus_valid.zip \\
        --labels fer2013new.csv

The three searches of `ensemble.search` that are the study's tables run one after the
other, beginning with an empty store: 20 trainings of the dense head with early
stopping, up to 50 epochs. Their time is that of the whole commands, from reading the
images to the report of each table's winner. What the naive way would take for the 20
trainings, each epoch running the frozen branches on every image again, is measured
with Keras's `fit` and `evaluate` on a sample and scaled to the images and epochs.
Backbones have random weights; the time does not depend on them.
"""

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from statistics import median

import numpy as np
from machine import describe_machine

from ensemble.cli import load_backend

load_backend()  # quietly, before anything imports Keras

from ensemble.datasets.loading import Dataset, Split, load_dataset  # noqa: E402
from ensemble.datasets.registry import Location  # noqa: E402
from ensemble.images.pipeline import stream  # noqa: E402
from ensemble.model import build_model  # noqa: E402

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

    total = 0.0
    epochs: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        manifest = write_manifest(Path(folder), dataset, train)
        for table in TABLES:
            started = time.perf_counter()
            trials = search(table, args.data, manifest, args.size)
            seconds = time.perf_counter() - started
            total += seconds
            for trial in trials:
                epochs[trial["model.branches"]] += int(trial["epochs"])
            print(f"{table:20} {len(trials):3} trials {seconds:7.1f} s", flush=True)

    naive = 0.0
    for label, number in epochs.items():
        per_step, per_look = naive_seconds(label, train, dataset.classes, args.size)
        naive += number * (per_step * count + per_look * len(validation))
        print(f"{label:20} {number:3} epochs {naive:9,.0f} s the naive way, so far", flush=True)
    print(f"\nall of it {total:,.0f} s, the naive way {naive:,.0f} s: ratio {naive / total:.0f}")


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


def search(table: str, data: str, manifest: Path, size: int) -> list[dict[str, str]]:
    """Runs a search as a user does, and returns the rows of its trials."""
    output = manifest.parent / table
    command = [sys.executable, "-m", "ensemble.search", "--config", table, "--data", data]
    command += ["--labels", str(manifest), "--weights", "random", "--image-size", str(size)]
    command += ["--views", "1", "--output", str(output)]
    environment = os.environ | {"ENSEMBLE_CACHE": str(manifest.parent / "store")}
    subprocess.run(command, env=environment, check=True, capture_output=True)
    (table_of_trials,) = output.glob("*/trials.csv")
    with table_of_trials.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


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
