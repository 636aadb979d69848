"""What a temperature does to the confidence of answers, judged on images it was not fitted on.

    python benchmarks/calibration.py runs/NAME [runs/NAME ...]

The stored predictions are taken back to temperature 1 and halved at random 20 times; the
temperature is fitted on one half and judged on the other, both ways. Figures are means. The
epoch of the run was chosen on all of these images.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from machine import describe_machine

from ensemble.cli.command_line import load_backend

load_backend()  # quietly, before anything imports Keras

from ensemble.commands.compare.recorded_answers import Answers, read_answers  # noqa: E402
from ensemble.metrics.calibration import (  # noqa: E402
    apply_temperature,
    fit_temperature,
    score_probabilities,
)

_HALVINGS = 20


def main() -> None:
    parser = argparse.ArgumentParser(description="Judge temperatures on held-out images.")
    parser.add_argument("runs", nargs="+", type=Path)
    args = parser.parse_args()
    print(describe_machine())
    print("images  accuracy  temperature    ECE before, after    NLL            Brier          run")
    for folder in args.runs:
        answers = read_answers(folder)
        accuracy = np.mean(answers.probabilities.argmax(axis=1) == answers.labels)
        stored = json.loads((folder / "report.json").read_text())["calibration"]["temperature"]
        temperature, *scores = halve(answers, stored)
        ece, nll, brier = np.array(scores).reshape(2, 3).T
        print(
            f"{len(answers.labels):6}  {accuracy:8.1%}  {temperature:11.2f}  {ece[0]:.3f}, "
            f"{ece[1]:.3f} ({ece[1] / ece[0] - 1:+.0%})  {nll[0]:.3f}, {nll[1]:.3f}  "
            f"{brier[0]:.3f}, {brier[1]:.3f}   {folder.name}"
        )


def halve(answers: Answers, stored: float) -> np.ndarray:
    """Returns the mean temperature, and ECE, NLL and Brier score before and after it."""
    plain = apply_temperature(answers.probabilities, 1 / stored)
    rows = []
    for seed in range(_HALVINGS):
        order = np.random.default_rng(seed).permutation(len(plain))
        halves = np.array_split(order, 2)
        for fitted, judged in (halves, halves[::-1]):
            temperature = fit_temperature(answers.labels[fitted], plain[fitted])
            labels, before = answers.labels[judged], plain[judged]
            after = apply_temperature(before, temperature)
            scores = [score_probabilities(labels, part) for part in (before, after)]
            rows.append(
                [temperature, *(s for part in scores for s in (part.ece, part.nll, part.brier))]
            )
    return np.mean(rows, axis=0)


if __name__ == "__main__":
    main()
