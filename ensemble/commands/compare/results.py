"""Candidates measured on the same images: paired tests, spread over seeds, gain of a fusion."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from configs.errors import DataError
from ensemble.commands.compare.candidates import Candidate
from ensemble.metrics.comparison import Comparison, compare
from ensemble.metrics.metrics import Metrics, headline_metrics, measure
from ensemble.metrics.predictions import Predictions, arrange_alike


@dataclass(frozen=True, eq=False)
class Result:
    """Metrics of a candidate; its images and classes are in the order of the first candidate.

    `against_first` is None for the first itself, and where the images are not the same.
    """

    candidate: Candidate
    predictions: Predictions
    metrics: Metrics
    against_first: Comparison | None


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation of each headline metric over two or more seeds."""

    candidates: Sequence[Candidate]
    scores: Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class Gain:
    """Gain of a fused candidate over its best part, and over the average of its parts.

    The average is that of the parts' probabilities; None where a part is missing.
    """

    result: Result
    best: Result
    over_best: Comparison
    average: float | None
    over_average: Comparison | None


def compare_candidates(candidates: Sequence[Candidate]) -> list[Result]:
    """Measures candidates and compares each with the first one.

    Args:
        candidates: Runs and trials with predictions of the same images. Those that differ only
            in their seed may have different images.

    Raises:
        DataError: If their images are different.
    """
    arranged = arrange_alike([candidate.predictions for candidate in candidates])
    if arranged is None:
        _check_only_seeds_differ(candidates)
    results = []
    for index, candidate in enumerate(candidates):
        found = arranged[index] if arranged else candidate.predictions
        metrics = measure(found.labels, found.probabilities, found.classes)
        against_first = None
        if arranged and index:
            against_first = compare(found.labels, arranged[0].predicted, found.predicted)
        results.append(Result(candidate, found, metrics, against_first))
    return results


def spread_over_seeds(results: Sequence[Result]) -> list[Spread]:
    """Returns mean and deviation of each setting that has several seeds."""
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(result.candidate.setting, []).append(result)
    return [
        Spread([result.candidate for result in group], _mean_and_deviation(group))
        for group in groups.values()
        if len({result.candidate.config.seed for result in group}) > 1
    ]


def gains_of_fusion(results: Sequence[Result]) -> list[Gain]:
    """Returns the gain of each fused candidate over those of its parts that are compared too.

    The parts of a candidate with several branches are the candidates with only one of these
    branches: the one whose other settings are the same, else the best. The parts of a fused run
    are its members.

    Args:
        results: On the same images; otherwise nothing is returned.
    """
    if any(result.against_first is None for result in results[1:]):
        return []
    gains = []
    for result in results:
        parts = _parts_of(result, results)
        found = [part for part in parts if part is not None]
        if not found:
            continue
        best = max(found, key=lambda part: part.metrics.accuracy)
        labels, predicted = result.predictions.labels, result.predictions.predicted
        over_best = compare(labels, best.predictions.predicted, predicted)
        average = over_average = None
        if len(found) == len(parts):
            mean = np.mean([part.predictions.probabilities for part in found], axis=0)
            average = float(np.mean(mean.argmax(axis=1) == labels))
            over_average = compare(labels, mean.argmax(axis=1), predicted)
        gains.append(Gain(result, best, over_best, average, over_average))
    return gains


def _check_only_seeds_differ(candidates: Sequence[Candidate]) -> None:
    if len({candidate.setting for candidate in candidates}) == 1:
        return
    first = candidates[0]
    other = next(c for c in candidates if c.predictions.arranged_as(first.predictions) is None)
    raise DataError(
        f"{first.name} and {other.name} have predictions of different images or classes and "
        f"cannot be compared. Train both on one split, as --labels "
        f"{first.run.folder / 'split.csv'} does."
    )


def _parts_of(result: Result, results: Sequence[Result]) -> list[Result | None]:
    candidate = result.candidate
    if candidate.fusion is not None:
        folders = {other.candidate.run.folder.resolve(): other for other in results}
        return [folders.get(member) for member in candidate.members]
    if len(candidate.branches) < 2:
        return []
    return [_single(label, result, results) for label in candidate.branches]


def _single(label: str, fused: Result, results: Sequence[Result]) -> Result | None:
    alone = [
        other
        for other in results
        if other.candidate.fusion is None and other.candidate.branches == [label]
    ]
    like = [s for s in alone if _without_branches(s) == _without_branches(fused)]
    return max(like or alone, key=lambda other: other.metrics.accuracy, default=None)


def _without_branches(result: Result) -> dict[str, object]:
    left_out = ("model.branches", "model.weights")
    settings = result.candidate.settings
    return {path: value for path, value in settings.items() if path not in left_out}


def _mean_and_deviation(group: Sequence[Result]) -> dict[str, tuple[float, float]]:
    scores = {}
    for metric in headline_metrics():
        found = [result.metrics.scores.get(metric.name) for result in group]
        values = [score.value for score in found if score]
        if len(values) == len(group):
            scores[metric.name] = float(np.mean(values)), float(np.std(values, ddof=1))
    return scores
