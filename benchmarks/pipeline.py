"""What reading and storing cost beside extracting: the whole pipeline against the bare engine.

    python benchmarks/pipeline.py
    python benchmarks/pipeline.py --data ferplus_train.zip --labels fer2013new.csv --images 10000

The pipeline reads files, decodes them, runs the branch and writes features into an
empty store; the bare engine runs the same branch on the same images, which are in
memory as arrays. Both take turns; the ratio is that of the medians. Without --data
the images are drawn faces, saved as PNG.
"""

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
from machine import describe_machine
from PIL import Image

from ensemble.cli.command_line import load_backend

load_backend()  # quietly, before anything imports Keras

import keras  # noqa: E402

from ensemble.data.loading import Split, load_dataset  # noqa: E402
from ensemble.data.reading import inspect, stream  # noqa: E402
from ensemble.data.registry import Location  # noqa: E402
from ensemble.data.synthetic_faces import EXPRESSIONS, draw_face  # noqa: E402
from ensemble.data.views import View  # noqa: E402
from ensemble.features.engines import make_engine  # noqa: E402
from ensemble.features.frozen_branch import FrozenBranch  # noqa: E402
from ensemble.features.store import FeatureStore  # noqa: E402
from ensemble.model.composition import build_extractor  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure reading and storing beside extracting.")
    parser.add_argument("--branches", default="vgg16,densenet121")
    parser.add_argument("--size", type=int, default=48, help="height and width in pixels")
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--data", type=Path, help="a folder or a .zip")
    parser.add_argument("--labels", type=Path, help="as of the programs; without: class folders")
    args = parser.parse_args()
    print(describe_machine())
    with tempfile.TemporaryDirectory() as folder:
        root = args.data or draw(Path(folder) / "faces", args.images)
        split = load_dataset(Location((root,), args.labels)).train
        split = split.select(range(min(args.images, len(split))))
        print("branch        images/s bare  images/s whole  whole of bare")
        for branch in args.branches.split(","):
            bare, whole = compare(branch, split, args.size, args.rounds, Path(folder))
            print(f"{branch:<12}  {bare:13.1f}  {whole:14.1f}  {whole / bare:13.1%}")


def compare(label: str, split: Split, size: int, rounds: int, folder: Path) -> tuple[float, float]:
    """Returns images a second of the bare engine and of the whole pipeline."""
    extractor = build_extractor([label], input_shape=(size, size, 3), weights="random")
    found = inspect(split, size)
    branch = FrozenBranch(extractor, label, FeatureStore(folder / "warm"))
    branch.fill(found.readable.select(range(64)), found.digests[:64], [View()])  # compiles
    engine = make_engine(keras.Model(extractor.input, extractor.output[label]), "auto")
    pixels = [
        (None, images) for _, images in stream(found.readable, size, batch_size=engine.batch_size)
    ]
    bare, whole = [], []
    for number in range(rounds):
        started = time.perf_counter()
        for _ in engine.map(pixels):
            pass
        bare.append(len(split) / (time.perf_counter() - started))
        branch.store = FeatureStore(folder / f"{label}-{number}")
        started = time.perf_counter()
        branch.fill(found.readable, found.digests, [View()])
        whole.append(len(split) / (time.perf_counter() - started))
    return median(bare), median(whole)


def draw(folder: Path, images: int) -> Path:
    """Saves drawn faces in class folders."""
    for number in range(images * 5 // 4 + 8):  # a fifth is drawn for validation
        expression = EXPRESSIONS[number % len(EXPRESSIONS)]
        path = folder / expression / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw_face(expression, np.random.default_rng(number))).save(path)
    return folder


if __name__ == "__main__":
    main()
