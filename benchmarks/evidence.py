"""How long all evidence about a run takes, from its stored predictions.

    python benchmarks/evidence.py
    python benchmarks/evidence.py --images 20000 --classes 8 --repeats 3

Draws probabilities of a model that is right about two times in three, and images for its
mistakes, into a folder of its own. Then it times, after all imports: reading the
predictions, metrics, intervals, the files that a training leaves (tables, pictures),
and the page of `ensemble.report`. The first time loads fonts
and the like; the median is over all of them.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
from machine import describe_machine
from PIL import Image

from configs.files import write_config
from configs.schema import ExperimentConfig
from ensemble.cli.command_line import load_backend

load_backend()  # quietly, before anything imports Keras


from ensemble.commands.compare.candidates import read_candidates  # noqa: E402
from ensemble.commands.report.page import write_page  # noqa: E402
from ensemble.data.loading import Split, load_labelled  # noqa: E402
from ensemble.data.registry import Location  # noqa: E402
from ensemble.metrics.card import write_card  # noqa: E402
from ensemble.metrics.evaluating import write_report, write_results  # noqa: E402
from ensemble.metrics.predictions import Predictions, read_predictions  # noqa: E402
from ensemble.metrics.report import Report, TrainingSummary  # noqa: E402
from ensemble.runs.run import Run  # noqa: E402

_SIZE = 48  # pixels
_EPOCHS = 30
_TRAINING = TrainingSummary(_EPOCHS, _EPOCHS, "val_accuracy")


def main() -> None:
    parser = argparse.ArgumentParser(description="Time all evidence about a run.")
    parser.add_argument("--images", type=int, default=3500)
    parser.add_argument("--classes", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    print(describe_machine())
    print(f"{args.images:,} images of {args.classes} classes, {args.duplicates} times\n")
    with tempfile.TemporaryDirectory() as folder:
        run, split = draw_run(Path(folder), args.images, args.classes)
        timed = [time_evidence(run, split) for _ in range(args.duplicates)]
        size = (run.folder / "report.html").stat().st_size
    print(f"{'seconds':<24}first  median")
    for times in timed:
        times["all"] = sum(times.values())
    for name, first in timed[0].items():
        print(f"{name:<24}{first:5.2f}  {median(times[name] for times in timed):6.2f}")
    print(f"\nthe page holds {size / 1e6:.2f} MB")


def draw_run(folder: Path, images: int, num_classes: int) -> tuple[Run, Split]:
    """Writes images, and the settings, epochs and predictions of a training on them."""
    generator = np.random.default_rng(0)
    classes = [f"class {label}" for label in range(num_classes)]
    for number in range(images):
        path = folder / "images" / classes[number % num_classes] / f"{number:06}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 255, (_SIZE, _SIZE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    split = load_labelled(Location((folder / "images",))).rows
    logits = generator.normal(size=(images, num_classes))
    logits[np.arange(images), split.labels] += 2
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)

    run = Run(folder / "run")
    values = {"data": {"root": [folder / "images"], "image_size": _SIZE}}
    config = ExperimentConfig.model_validate(values)
    run.write("config.yaml", write_config(config.model_dump(mode="json", exclude_none=True)))
    header = ["epoch", "phase", "accuracy", "val_accuracy", "loss", "val_loss"]
    shares = np.linspace(0.3, 0.7, _EPOCHS)
    rows = [(e, "head", s, s, 2 - s, 2 - s) for e, s in enumerate(shares, 1)]
    run.write_table("history.csv", header, rows)
    predictions = Predictions(classes, split.names, split.labels, probabilities)
    report = Report("synthetic", predictions, classes[0], training=_TRAINING)
    write_results(run, report)
    run.write("card.md", write_card(config, report))
    return run, split


def time_evidence(run: Run, split: Split) -> dict[str, float]:
    """Returns the seconds that each part of the evidence takes."""
    seconds: dict[str, float] = {}

    def timed(name: str, work: Callable[[], object]) -> object:
        started = time.perf_counter()
        result = work()
        seconds[name] = time.perf_counter() - started
        return result

    found = read_predictions(run.folder)
    timed("reading predictions", lambda: read_predictions(run.folder))
    report = Report("synthetic", found, found.classes[0], training=_TRAINING)
    timed("metrics and intervals", lambda: report.metrics)
    timed("warnings", lambda: report.warnings)
    timed("tables and figures", lambda: write_report(run, report, split, _SIZE))

    def report_page() -> None:
        run.write("report.html", write_page(read_candidates([run.folder])))

    timed("page", report_page)
    return seconds


if __name__ == "__main__":
    main()
