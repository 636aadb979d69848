"""How large exports are and how fast they run, beside `keras.Model.predict`.

    python benchmarks/export.py
    python benchmarks/export.py --branches vgg16 --size 96 --formats onnx,openvino

All run the same ensemble with random weights on the same images, which are in memory,
through `load_exported` as a user would; `predict` runs with Keras's defaults. They take turns in
every round, so that whatever else the machine does meets all of them; figures are
medians of the rounds.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
from machine import describe_machine

from configs.errors import UserError
from ensemble.cli.command_line import load_backend
from ensemble.model.runtimes import RUNTIMES, load_exported

load_backend()  # quietly, before anything imports Keras

from ensemble.commands.export.exporting import export_model  # noqa: E402
from ensemble.model.composition import build_model  # noqa: E402

_BATCHES = (1, 32)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure exports: size, agreement, latency.")
    parser.add_argument("--branches", default="vgg16,densenet121")
    parser.add_argument("--size", type=int, default=48, help="height and width in pixels")
    parser.add_argument("--formats", default=",".join(RUNTIMES))
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    ensemble = build_model(
        args.branches.split(","),
        classes=[str(number) for number in range(8)],
        image_size=args.size,
        weights="random",
    )
    runners = {"keras predict": lambda images: ensemble.model.predict(images, verbose=0)}
    print(f"{describe_machine()}\n{args.branches}, {args.size} px\n")
    print("format           MB  seconds with check  largest difference")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        ensemble.save(path)
        print(f"{'model.keras':13}  {path.stat().st_size / 1e6:4.0f}")
        for name in args.formats.split(","):
            start = time.perf_counter()
            try:
                made = export_model(ensemble, name, Path(folder) / name, verify=True)
            except UserError as error:
                print(f"{name}: {error}")
                continue
            seconds = time.perf_counter() - start
            print(f"{name:13}  {made.size / 1e6:4.0f}  {seconds:18.0f}  {made.difference:18.1e}")
            runners[name] = load_exported(made.folder)
        measure(runners, args.size, args.rounds)


def measure(runners: dict[str, Callable], size: int, rounds: int) -> None:
    """Prints how long each runner takes for a batch, in milliseconds."""
    medians: dict[str, list[float]] = {name: [] for name in runners}
    for count in _BATCHES:
        images = np.random.default_rng(0).uniform(0, 255, (count, size, size, 3)).astype("float32")
        times: dict[str, list[float]] = {name: [] for name in runners}
        for turn in range(rounds + 1):
            for name, run in runners.items():
                start = time.perf_counter()
                run(images)
                if turn:  # the first one compiles
                    times[name].append(1000 * (time.perf_counter() - start))
        for name, values in times.items():
            medians[name].append(median(values))
    print(f"\n{'milliseconds for':16}" + "".join(f"{count:>5} images" for count in _BATCHES))
    for name, values in medians.items():
        print(f"{name:16}" + "".join(f"{value:12.1f}" for value in values))


if __name__ == "__main__":
    main()
