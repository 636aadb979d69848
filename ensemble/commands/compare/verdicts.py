"""Candidates side by side, without flattery: paired tests, spread over seeds, gain of a fusion."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from configs.errors import DataError
from ensemble.commands.compare.candidates import Candidate
from ensemble.commands.compare.recorded_answers import Answers, arrange_alike
from ensemble.metrics.intervals import Comparison, ScoreIntervals, compare, score_intervals
from ensemble.metrics.metrics import Metrics, measure


@dataclass(frozen=True, eq=False)
class Standing:
    """How well a candidate does.

    Args:
        candidate: The run or trial.
        answers: Its answers, images and classes in the order of the first candidate.
        metrics: Its figures.
        intervals: Their 95 % intervals.
        against_first: What it gains over the first candidate on the same images; None
            for the first itself, and where the images are not the same.
    """

    candidate: Candidate
    answers: Answers
    metrics: Metrics
    intervals: ScoreIntervals
    against_first: Comparison | None


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation (of a sample) over seeds, of two figures in 0..1.

    Args:
        candidates: The runs that differ in their seed alone, two at least.
        accuracy: Mean, deviation.
        macro_f1: Mean, deviation.
    """

    candidates: Sequence[Candidate]
    accuracy: tuple[float, float]
    macro_f1: tuple[float, float]


@dataclass(frozen=True)
class Gain:
    """What a candidate of several branches, or of several runs, gains over its parts.

    Args:
        standing: The fused candidate.
        best: The part that answers most images correctly.
        over_best: What it gains over that one.
        average: The accuracy of the plain average of the parts' probabilities; None, like
            the next, where a part is missing.
        over_average: What it gains over that.
    """

    standing: Standing
    best: Standing
    over_best: Comparison
    average: float | None
    over_average: Comparison | None


def compare_candidates(candidates: Sequence[Candidate]) -> list[Standing]:
    """Returns how well candidates do, each against the first one.

    Args:
        candidates: Runs and trials that answered the same images; if they differ in
            their seed alone, each may have images of its own.

    Raises:
        DataError: If they answered different images.
    """
    arranged = arrange_alike([candidate.answers for candidate in candidates])
    if arranged is None:
        _refuse_other_images(candidates)
    standings = []
    for index, candidate in enumerate(candidates):
        answers = arranged[index] if arranged else candidate.answers
        metrics = measure(answers.labels, answers.probabilities, answers.classes)
        against_first = None
        if arranged and index:
            against_first = compare(answers.labels, arranged[0].predicted, answers.predicted)
        intervals = score_intervals(metrics.confusion)
        standings.append(Standing(candidate, answers, metrics, intervals, against_first))
    return standings


def spread_over_seeds(standings: Sequence[Standing]) -> list[Spread]:
    """Returns mean and deviation for each setting that stands there with several seeds."""
    groups: dict[str, list[Standing]] = {}
    for standing in standings:
        groups.setdefault(standing.candidate.setting, []).append(standing)
    return [
        Spread(
            [standing.candidate for standing in group],
            _mean_and_deviation([standing.metrics.accuracy for standing in group]),
            _mean_and_deviation([standing.metrics.macro.f1 for standing in group]),
        )
        for group in groups.values()
        if len({standing.candidate.config.seed for standing in group}) > 1
    ]


def gains_of_fusion(standings: Sequence[Standing]) -> list[Gain]:
    """Returns what each fused candidate gains over its parts, as far as these stand there.

    The parts of a candidate with several branches are the candidates with one of these
    branches alone: the one whose other settings are the same, else the best. The
    parts of a fused run are its members.

    Args:
        standings: On the same images; if they are not, there is nothing to be told.
    """
    if any(standing.against_first is None for standing in standings[1:]):
        return []
    gains = []
    for standing in standings:
        parts = _parts_of(standing, standings)
        found = [part for part in parts if part is not None]
        if not found:
            continue
        best = max(found, key=lambda part: part.metrics.accuracy)
        labels, predicted = standing.answers.labels, standing.answers.predicted
        over_best = compare(labels, best.answers.predicted, predicted)
        average = over_average = None
        if len(found) == len(parts):
            mean = np.mean([part.answers.probabilities for part in found], axis=0).argmax(axis=1)
            average = float(np.mean(mean == labels))
            over_average = compare(labels, mean, predicted)
        gains.append(Gain(standing, best, over_best, average, over_average))
    return gains


def _refuse_other_images(candidates: Sequence[Candidate]) -> None:
    if len({candidate.setting for candidate in candidates}) == 1:
        return
    first = candidates[0]
    other = next(c for c in candidates if c.answers.arranged_as(first.answers) is None)
    raise DataError(
        f"{first.name} and {other.name} answered different images or classes and cannot be "
        f"compared. Train both on one split, as --labels {first.run.folder / 'split.csv'} does."
    )


def _parts_of(standing: Standing, standings: Sequence[Standing]) -> list[Standing | None]:
    candidate = standing.candidate
    if candidate.fusion is not None:
        folders = {other.candidate.run.folder.resolve(): other for other in standings}
        return [folders.get(member) for member in candidate.members]
    if len(candidate.branches) < 2:
        return []
    return [_single(label, standing, standings) for label in candidate.branches]


def _single(label: str, fused: Standing, standings: Sequence[Standing]) -> Standing | None:
    alone = [
        other
        for other in standings
        if other.candidate.fusion is None and other.candidate.branches == [label]
    ]
    like = [s for s in alone if _without_branches(s) == _without_branches(fused)]
    return max(like or alone, key=lambda other: other.metrics.accuracy, default=None)


def _without_branches(standing: Standing) -> dict[str, object]:
    left_out = ("model.branches", "model.weights")
    settings = standing.candidate.settings
    return {path: value for path, value in settings.items() if path not in left_out}


def _mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    return float(np.mean(values)), float(np.std(values, ddof=1))
