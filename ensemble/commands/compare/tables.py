"""A comparison as tables of texts, for the screen and for a file."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from configs.errors import DataError
from ensemble.commands.compare.candidates import Candidate
from ensemble.commands.compare.costs import Cost
from ensemble.commands.compare.published import (
    CLASSES,
    REPORTS,
    TABLES,
    PublishedReport,
    PublishedTable,
)
from ensemble.commands.compare.verdicts import Gain, Spread, Standing
from ensemble.commands.search.spaces import label
from ensemble.data.labels import share_classes
from ensemble.metrics.intervals import METHOD, Comparison, Difference, Interval


@dataclass(frozen=True)
class Table:
    """A table of texts.

    Args:
        title: What it shows.
        rows: The first one is the header.
        note: How to read it.
    """

    title: str
    rows: Sequence[Sequence[str]]
    note: str = ""


def short_names(standings: Sequence[Standing]) -> list[str]:
    """Returns for each candidate the settings in which it differs, or else its name."""
    leaves = _varying_leaves(standings)
    texts = [", ".join(_values(each, leaves)) for each in standings]
    unique = len(set(texts)) == len(texts) and all(texts)
    return texts if unique else [each.candidate.name for each in standings]


def figure_table(standings: Sequence[Standing]) -> Table:
    """Returns accuracy and macro-F1 with intervals, each candidate against the first."""
    leaves = _varying_leaves(standings)
    paired = any(standing.against_first for standing in standings)
    header = ["candidate", *(leaf.split(".")[-1] for leaf in leaves), "accuracy", "macro-F1"]
    if paired:
        header += ["against the first, points", "McNemar p", "verdict"]
    rows = [header]
    for standing in standings:
        metrics = standing.metrics
        row = [standing.candidate.name]
        row += _values(standing, leaves)
        row += [
            f"{metrics.accuracy:.2%} {_percents(standing.intervals.accuracy)}",
            f"{metrics.macro.f1:.3f} {_share_interval(standing.intervals.macro_f1)}",
        ]
        if paired:
            row += _against(standing.against_first)
        rows.append(row)
    images = standings[0].metrics.images
    note = f"Brackets: 95 % intervals. {METHOD}."
    if paired:
        note += (
            " Differences are paired, image by image. A first one that was chosen for being the "
            "best on these images is flattered by that: judge it on others."
        )
    elif len(standings) > 1:
        note += " Each seed drew images of its own, so nothing is compared image by image."
    return Table(f"Candidates on {images:,} images", rows, note)


def seed_table(spreads: Sequence[Spread]) -> Table:
    """Returns mean and deviation over seeds."""
    rows = [["setting", "seeds", "accuracy", "macro-F1"]]
    for spread in spreads:
        first, *_, last = spread.candidates
        (accuracy, deviation), (f1, f1_deviation) = spread.accuracy, spread.macro_f1
        rows.append(
            [
                f"{label(first.settings['model.branches'])}: {first.name} to {last.name}",
                str(len(spread.candidates)),
                f"{accuracy:.2%} +- {deviation:.2%}",
                f"{f1:.3f} +- {f1_deviation:.3f}",
            ]
        )
    return Table(
        "Over seeds", rows, "Mean +- standard deviation of runs that differ in seed alone."
    )


def gain_table(gains: Sequence[Gain]) -> Table:
    """Returns what fused candidates gain over their best part and over the parts' average."""
    rows = [["fused", "accuracy", "best part", "its accuracy", "gain over it, points", "verdict"]]
    rows[0] += ["average of parts", "gain over it, points", "verdict"]
    for gain in gains:
        over = gain.over_average
        rows.append(
            [
                f"{label(gain.standing.candidate.settings['model.branches'])}"
                f" ({gain.standing.candidate.name})",
                f"{gain.standing.metrics.accuracy:.2%}",
                label(gain.best.candidate.settings["model.branches"]),
                f"{gain.best.metrics.accuracy:.2%}",
                _points(gain.over_best.accuracy),
                gain.over_best.accuracy.verdict,
                "" if gain.average is None else f"{gain.average:.2%}",
                "" if over is None else _points(over.accuracy),
                "" if over is None else over.accuracy.verdict,
            ]
        )
    return Table(
        "Gain of fusion",
        rows,
        "Accuracy against the best single part, and against the plain mean of the parts' "
        "probabilities, on the same images; 95 % intervals, paired.",
    )


def cost_table(standings: Sequence[Standing], costs: Sequence[Cost], how: str) -> Table:
    """Returns figures beside parameters and time.

    Args:
        standings: The candidates.
        costs: Of each.
        how: How the times were measured.
    """
    rows = [["candidate", "branches", "accuracy", "macro-F1", "parameters"]]
    rows[0] += ["ms, one image", "ms an image, batch"]
    for standing, cost in zip(standings, costs, strict=True):
        rows.append(
            [
                standing.candidate.name,
                label(standing.candidate.settings["model.branches"]),
                f"{standing.metrics.accuracy:.2%} {_percents(standing.intervals.accuracy)}",
                f"{standing.metrics.macro.f1:.3f} {_share_interval(standing.intervals.macro_f1)}",
                f"{cost.parameters:,}",
                f"{1000 * cost.single:.1f}",
                f"{1000 * cost.batch:.1f}",
            ]
        )
    return Table("Accuracy against parameters and time", rows, how)


def study_tables(standings: Sequence[Standing]) -> Iterator[Table]:
    """Yields the study's tables of which two rows at least were run, ours beside them."""
    for published in TABLES:
        table = _study_table(published, standings)
        if table is not None:
            yield table


def report_table(standings: Sequence[Standing]) -> Table:
    """Returns precision, recall and F1 of each class, and the study's for the same settings."""
    classes = standings[0].answers.classes
    rows = [["precision / recall / F1", *classes, "accuracy"]]
    for name, standing in zip(short_names(standings), standings, strict=True):
        scores = standing.metrics.per_class
        rates = [_rates(each.precision, each.recall, each.f1) for each in scores]
        rows.append([name, *rates, f"{standing.metrics.accuracy:.3f}"])
    note = ""
    for report in REPORTS:
        if _matching(standings, report.branch, report.settings):
            rates = [_rates(*each) for each in report.classes]
            rows.append([_study_name(report), *rates, f"{report.accuracy:.3f}"])
            note = "The study calls its classes 001 to 003 and does not say which is which."
    return Table("Classes", rows, note)


def _study_table(published: PublishedTable, standings: Sequence[Standing]) -> Table | None:
    branches = list(next(iter(published.rows.values())))
    header = [f"{part} {branch}" for part in ("training", "validation") for branch in branches]
    rows, matched = [[published.leaf.split(".")[-1], *header]], 0
    for value, figures in published.rows.items():
        settings = {**published.fixed, published.leaf: value}
        ours = {branch: _matching(standings, branch, settings) for branch in branches}
        matched += any(ours.values())
        training = [
            _beside(figures[branch][0], [each.candidate.training_accuracy for each in ours[branch]])
            for branch in branches
        ]
        validation = [
            _beside(figures[branch][1], [s.metrics.accuracy for s in ours[branch]])
            for branch in branches
        ]
        rows.append([label(value), *training, *validation])
    if matched < 2:
        return None
    note = (
        "Accuracy in %: the study's / ours, over several seeds with its standard deviation. "
        "Training accuracy is that of the best epoch. The study's are single runs."
    )
    return Table(f"The study's {published.title}", rows, note)


def _matching(
    standings: Sequence[Standing], branch: str, settings: Mapping[str, Any]
) -> list[Standing]:
    """Returns the candidates of the first setting that fits, one for each seed."""
    fitting = [each for each in standings if _fits(each.candidate, branch, settings)]
    return [each for each in fitting if each.candidate.setting == fitting[0].candidate.setting]


def _fits(candidate: Candidate, branch: str, settings: Mapping[str, Any]) -> bool:
    return (
        candidate.branches == [branch]
        and _is_comparable(candidate)
        and all(_equal(candidate.settings.get(path), value) for path, value in settings.items())
    )


def _is_comparable(candidate: Candidate) -> bool:
    """Returns whether a run has the study's classes, photos and frozen, pretrained branches."""
    config, classes = candidate.config, candidate.answers.classes
    try:
        shared = share_classes(classes, classes=CLASSES, mapping={}).names
    except DataError:
        return False
    return (
        len(classes) == len(shared) == len(CLASSES)
        and candidate.fusion is None
        and bool(config.data.root)
        and config.data.source != "demo"
        and not config.training.unfreeze
        and all(config.model.weights_of(name) != "random" for name in candidate.branches)
    )


def _equal(first: Any, second: Any) -> bool:
    if isinstance(first, float | int) and isinstance(second, float | int):
        return math.isclose(first, second, rel_tol=1e-6)
    return first == second


def _beside(published: float, ours: Sequence[float | None]) -> str:
    known = [100 * value for value in ours if value is not None]
    if not known:
        return f"{published:.2f} / -"
    deviation = f" +- {np.std(known, ddof=1):.2f}" if len(known) > 1 else ""
    return f"{published:.2f} / {np.mean(known):.2f}{deviation}"


def _study_name(report: PublishedReport) -> str:
    initializer = report.settings["model.head.kernel_initializer"]
    return f"the study: {report.branch}, {initializer}"


def _varying_leaves(standings: Sequence[Standing]) -> list[str]:
    settings = [standing.candidate.settings for standing in standings]
    paths = list(dict.fromkeys(path for each in settings for path in each))
    fused = any(standing.candidate.fusion is not None for standing in standings)
    plain = [s.candidate.settings for s in standings if s.candidate.fusion is None]
    varying = [path for path in paths if len({str(each.get(path)) for each in plain}) > 1]
    if fused and "model.branches" not in varying:
        varying.insert(0, "model.branches")
    return varying


def _values(standing: Standing, leaves: Sequence[str]) -> list[str]:
    settings = standing.candidate.settings
    return [label(settings[leaf]) if leaf in settings else "" for leaf in leaves]


def _against(comparison: Comparison | None) -> list[str]:
    if comparison is None:
        return ["", "", "the first"]
    test, gain = comparison.mcnemar, comparison.accuracy
    return [_points(gain), f"{test.p_value:.3g}", gain.verdict]


def _points(difference: Difference) -> str:
    low, high = 100 * difference.interval.low, 100 * difference.interval.high
    return f"{100 * difference.value:+.2f} [{low:+.2f}, {high:+.2f}]"


def _percents(interval: Interval) -> str:
    return f"[{100 * interval.low:.1f}, {100 * interval.high:.1f}]"


def _share_interval(interval: Interval) -> str:
    return f"[{interval.low:.3f}, {interval.high:.3f}]"


def _rates(*rates: float) -> str:
    return " / ".join(f"{rate:.2f}" for rate in rates)
