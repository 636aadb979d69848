"""A run as its files tell it: what a page shows, read and checked before anything is drawn."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.errors import RunError
from ensemble.commands.compare.candidates import Candidate
from ensemble.commands.compare.recorded_answers import Answers, read_answers
from ensemble.data.registry import Problem
from ensemble.metrics.calibration import Calibration, measure_calibration
from ensemble.metrics.groups import Gap, GroupReport, GroupScores
from ensemble.metrics.intervals import Difference, Interval, ScoreIntervals, score_intervals
from ensemble.metrics.metrics import Baseline, ClassScores, Metrics, Scores, worst_mistakes
from ensemble.metrics.report import TrainingSummary
from ensemble.runs.run import Run

_INTERVALS = ("accuracy_interval", "macro_f1_interval")  # of a group


@dataclass(frozen=True, eq=False)
class Judgement:
    """A report that a run keeps, on its validation images or on others.

    Args:
        folder: Where it lies.
        subject: What was judged on what.
        classes: Class names.
        metrics: The figures.
        intervals: Their 95 % intervals.
        warnings: What a reader must know first.
        training: How the model was trained; None where that is not told.
        facts: Lines about data and model.
        problems: Images that were left out, and why.
        calibration: Of the probabilities.
        groups: Figures by group; None without groups.
        answers: To each image.
    """

    folder: Path
    subject: str
    classes: Sequence[str]
    metrics: Metrics
    intervals: ScoreIntervals
    warnings: Sequence[str]
    training: TrainingSummary | None
    facts: Mapping[str, str]
    problems: Sequence[Problem]
    calibration: Calibration
    groups: GroupReport | None
    answers: Answers

    def worst(self, count: int) -> list[int]:
        """Returns indices of up to `count` mistakes, the most confident first."""
        return worst_mistakes(self.answers.labels, self.answers.probabilities, count)


@dataclass(frozen=True, eq=False)
class RunRecord:
    """Everything that a page shows of a run.

    Args:
        candidate: The run as it is compared, with settings and epochs.
        judgement: Of its validation images.
        evaluations: Of other images, by `ensemble.evaluate`.
        fine_tuned_from: First epoch of the second phase; None without one.
        counts: Split to class to number of images; empty where the split is not kept.
        repeats: Images that stand in several splits: rows of `duplicates.csv`.
        environment: Versions, devices, checksums, command; empty where it is not kept.
        settings: The run's settings as YAML.
        card: The model card as Markdown; None without one.
    """

    candidate: Candidate
    judgement: Judgement
    evaluations: Sequence[Judgement]
    fine_tuned_from: int | None
    counts: Mapping[str, Mapping[str, int]]
    repeats: Sequence[Mapping[str, str]]
    environment: Mapping[str, Any]
    settings: str
    card: str | None

    @property
    def name(self) -> str:
        """That of the run."""
        return self.candidate.name


def read_record(candidate: Candidate) -> RunRecord:
    """Returns everything that a run keeps.

    Raises:
        RunError: If it is damaged.
    """
    run = candidate.run
    evaluations = sorted(run.folder.glob("evaluations/*/report.json"))
    rows = run.read_table("split.csv") if _has(run, "split.csv") else []
    counts: dict[str, Counter[str]] = {}
    for row in rows:
        counts.setdefault(row.get("split", ""), Counter())[row.get("label", "")] += 1
    return RunRecord(
        candidate,
        _read_judgement(run.folder),
        [_read_judgement(path.parent) for path in evaluations],
        _second_phase(run),
        counts,
        run.read_table("duplicates.csv") if _has(run, "duplicates.csv") else [],
        run.read_json("environment.json") if _has(run, "environment.json") else {},
        _read_text(run, "config.yaml"),
        _read_text(run, "card.md") if _has(run, "card.md") else None,
    )


def _has(run: Run, name: str) -> bool:
    return (run.folder / name).is_file()


def _read_text(run: Run, name: str) -> str:
    path = run.folder / name
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"{path} cannot be read ({error}).") from error


def _second_phase(run: Run) -> int | None:
    """Returns the first epoch whose phase is not that of the first one."""
    phases = (
        [row.get("phase") for row in run.read_table("history.csv")]
        if _has(run, "history.csv")
        else []
    )
    return next((place for place, phase in enumerate(phases, 1) if phase != phases[0]), None)


def _read_judgement(folder: Path) -> Judgement:
    content = Run(folder).read_json("report.json")
    answers = read_answers(folder)
    try:
        training, metrics = content["training"], _metrics(content["metrics"])
        judgement = Judgement(
            folder,
            content["subject"],
            content["classes"],
            metrics,
            score_intervals(metrics.confusion),
            content["warnings"],
            TrainingSummary(**training) if training else None,
            content["facts"],
            [Problem(**problem) for problem in content["problems"]],
            _calibration(content["calibration"], answers),
            _groups(content["groups"]) if content["groups"] else None,
            answers,
        )
        if answers.classes != tuple(judgement.classes):
            raise ValueError("its classes are not those of predictions.csv")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunError(
            f"{folder / 'report.json'} is damaged or of another version "
            f"({type(error).__name__}: {error}). Train or evaluate again."
        ) from error
    return judgement


def _metrics(content: dict[str, Any]) -> Metrics:
    baseline = content["baseline"]
    parts = {
        "macro": Scores(**content["macro"]),
        "weighted": Scores(**content["weighted"]),
        "per_class": tuple(ClassScores(**scores) for scores in content["per_class"]),
        "confusion": tuple(tuple(map(int, row)) for row in content["confusion"]),
        "baseline": Baseline(**baseline) if baseline else None,
    }
    return Metrics(**{**content, **parts})


def _calibration(content: dict[str, Any], answers: Answers) -> Calibration:
    return measure_calibration(
        answers.labels,
        answers.probabilities,
        float(content["temperature"]),
        same_images=bool(content["same_images"]),
    )


def _groups(content: dict[str, Any]) -> GroupReport:
    scores = [
        GroupScores(**{**group, **{name: Interval(**group[name]) for name in _INTERVALS}})
        for group in content["groups"]
    ]
    gaps = {name: _gap(content[name]) for name in ("accuracy_gap", "macro_f1_gap")}
    return GroupReport(**{**content, "groups": tuple(scores), **gaps})


def _gap(content: dict[str, Any] | None) -> Gap | None:
    if content is None:
        return None
    difference = content["difference"]
    return Gap(
        content["best"],
        content["worst"],
        Difference(difference["value"], Interval(**difference["interval"])),
    )
