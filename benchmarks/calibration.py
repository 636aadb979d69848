"""Effect of a temperature on confidences, evaluated on images that it was not fitted on.

    python benchmarks/calibration.py runs/NAME [runs/NAME ...]

The stored predictions are taken back to temperature 1 and halved at random 20 times; the
temperature is fitted on one half and evaluated on the other, both ways. Figures are means. The
epoch of the run was chosen on all of these images.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from machine import describe_machine

from ensemble.cli.command_line import load_backend

load_backend()  # quietly, before anything imports Keras


from ensemble.metrics.calibration import (  # noqa: E402
    apply_temperature,
    fit_temperature,
    score_probabilities,
)
from ensemble.metrics.predictions import Predictions, read_predictions  # noqa: E402

_HALVINGS = 20


def main() -> None:
    parser = argparse.ArgumentParser(description="Evaluate temperatures on held-out images.")
    parser.add_argument("runs", nargs="+", type=Path)
    args = parser.parse_args()
    print(describe_machine())
    print("images  accuracy  temperature    ECE before, after    NLL            Brier          run")
    for folder in args.runs:
        found = read_predictions(folder)
        accuracy = np.mean(found.predicted == found.labels)
        stored = json.loads((folder / "report.json").read_text())["calibration"]["temperature"]
        temperature, *scores = halve(found, stored)
        ece, nll, brier = np.array(scores).reshape(2, 3).T
        print(
            f"{len(found):6}  {accuracy:8.1%}  {temperature:11.2f}  {ece[0]:.3f}, "
            f"{ece[1]:.3f} ({ece[1] / ece[0] - 1:+.0%})  {nll[0]:.3f}, {nll[1]:.3f}  "
            f"{brier[0]:.3f}, {brier[1]:.3f}   {folder.name}"
        )


def halve(found: Predictions, stored: float) -> np.ndarray:
    """Returns the mean temperature, and ECE, NLL and Brier score before and after it."""
    plain = apply_temperature(found.probabilities, 1 / stored)
    rows = []
    for seed in range(_HALVINGS):
        order = np.random.default_rng(seed).permutation(len(plain))
        halves = np.array_split(order, 2)
        for fitted, other in (halves, halves[::-1]):
            temperature = fit_temperature(found.labels[fitted], plain[fitted])
            labels, before = found.labels[other], plain[other]
            after = apply_temperature(before, temperature)
            scores = [score_probabilities(labels, part) for part in (before, after)]
            rows.append(
                [temperature, *(s for part in scores for s in (part.ece, part.nll, part.brier))]
            )
    return np.mean(rows, axis=0)


if __name__ == "__main__":
    main()
