"""The result of an evaluation, which all reports are made of."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from configs.errors import RunError
from ensemble.data.leakage import Duplicate
from ensemble.data.registry import Problem
from ensemble.metrics.calibration import Calibration, measure_calibration
from ensemble.metrics.comparison import NOT_BETTER, compare
from ensemble.metrics.groups import FEW_IMAGES, GroupReport
from ensemble.metrics.metrics import Metrics, headline_metrics, measure
from ensemble.metrics.predictions import Predictions, read_predictions
from ensemble.metrics.trained_on import TrainedOn
from ensemble.runs.recorded_split import read_duplicates
from ensemble.runs.run import Run
from ensemble.system.text import plural

_MAX_GROUPS = 20  # named in a warning; all of them are in the JSON


@dataclass(frozen=True, slots=True)
class TrainingSummary:
    """Training of the evaluated model: the best epoch, from 1, by a metric of the history.

    `values` holds the entries of the history at that epoch.
    """

    epochs: int
    best_epoch: int
    monitor: str
    values: Mapping[str, float | None] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values, ready for JSON; a value that is not a number is None."""
        values = {
            name: float(value) if value is not None and math.isfinite(value) else None
            for name, value in self.values.items()
        }
        return {**asdict(self), "values": values}


@dataclass(frozen=True, eq=False)
class Report:
    """Predictions on labelled images, evaluated.

    Args:
        subject: What was evaluated on what, such as "three_class on validation".
        predictions: Probabilities of the images.
        majority: The majority class of the training images; None where it is not known.
        temperature: Temperature of the model, which is in the probabilities.
        same_images: Whether it was fitted on these images.
        training: How the model was trained; None where it is not known.
        facts: Lines about data and model: heading to text.
        problems: Images that were left out, and why.
        groups: Metrics of groups of the images, where they are asked for.
        trained_on: Which of the images the model was trained on.
    """

    subject: str
    predictions: Predictions
    majority: str | None = None
    temperature: float = 1.0
    same_images: bool = False
    training: TrainingSummary | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    problems: Sequence[Problem] = ()
    groups: GroupReport | None = None
    trained_on: TrainedOn = field(default_factory=lambda: TrainedOn([]))

    @property
    def classes(self) -> Sequence[str]:
        """Names of the classes."""
        return self.predictions.classes

    @cached_property
    def metrics(self) -> Metrics:
        """Metrics with their 95 % intervals."""
        found = self.predictions
        return measure(found.labels, found.probabilities, found.classes, self.majority)

    @cached_property
    def calibration(self) -> Calibration:
        """Agreement of probabilities and accuracies, before the temperature and after."""
        labels, probabilities = self.predictions.labels, self.predictions.probabilities
        return measure_calibration(
            labels, probabilities, self.temperature, same_images=self.same_images
        )

    @cached_property
    def unseen_metrics(self) -> Metrics | None:
        """Metrics without the images that the model was trained on; None if none remain."""
        found, seen = self.predictions, self.trained_on.names
        kept = np.array([name not in seen for name in found.names])
        if not kept.any():
            return None
        return measure(found.labels[kept], found.probabilities[kept], found.classes)

    @cached_property
    def warnings(self) -> list[str]:
        """What a reader must know before trusting the metrics: one sentence each."""
        return [*self._leak_warnings(), *self._count_warnings(), *self._baseline_warnings()]

    def to_dict(self) -> dict[str, Any]:
        """Returns everything but the predictions, ready for JSON."""
        return {
            "subject": self.subject,
            "classes": list(self.classes),
            "metrics": self.metrics.to_dict(),
            "intervals": self.metrics.intervals_to_dict(),
            "calibration": self.calibration.to_dict(),
            "groups": asdict(self.groups) if self.groups else None,
            "trained_on": self._trained_on_to_dict(),
            "warnings": self.warnings,
            "training": self.training.to_dict() if self.training else None,
            "facts": dict(self.facts),
            "problems": [asdict(problem) for problem in self.problems],
        }

    @classmethod
    def from_dict(
        cls,
        content: Mapping[str, Any],
        predictions: Predictions,
        duplicates: Sequence[Duplicate] = (),
    ) -> "Report":
        """Returns the report of a dictionary from `to_dict`, also of an earlier version.

        All metrics are measured again. `duplicates` are duplicates of training images.

        Raises:
            ValueError: If the content is of another kind, or not of these predictions.
        """
        try:
            metrics, calibration = content["metrics"], content["calibration"]
            images = len(predictions)
            if content["classes"] != list(predictions.classes) or metrics["images"] != images:
                raise ValueError("its images or classes are not those of predictions.csv")
            training, trained_on = content["training"], content.get("trained_on")
            unreadable = trained_on["unreadable_training_images"] if trained_on else 0
            return cls(
                subject=content["subject"],
                predictions=predictions,
                majority=metrics["baseline"]["name"] if metrics["baseline"] else None,
                temperature=float(calibration["temperature"]),
                same_images=bool(calibration["same_images"]),
                training=TrainingSummary(**training) if training else None,
                facts=dict(content["facts"]),
                problems=[Problem(**problem) for problem in content["problems"]],
                groups=TypeAdapter(GroupReport | None).validate_python(content["groups"]),
                trained_on=TrainedOn(duplicates, unreadable),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{type(error).__name__}: {error}") from error

    @classmethod
    def read(cls, folder: Path) -> "Report":
        """Reads the report of a run, a trial or an evaluation from its folder.

        Raises:
            RunError: If a file is missing or damaged.
        """
        run = Run(folder)
        content, predictions = run.read_json("report.json"), read_predictions(folder)
        duplicates = read_duplicates(run) if content.get("trained_on") else []
        try:
            return cls.from_dict(content, predictions, duplicates)
        except ValueError as error:
            raise RunError(
                f"{folder / 'report.json'} is damaged or of another version ({error}). "
                "Train or evaluate again."
            ) from error

    def as_json(self) -> str:
        """Returns the dictionary as JSON."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    def _leak_warnings(self) -> Iterator[str]:
        found, rest = self.trained_on, self.unseen_metrics
        if found.duplicates:
            kinds = ", ".join(f"{count:,} {kind}" for kind, count in found.kinds.items())
            others = "no other images remain"
            if rest:
                scores = [
                    f"{metric.title} {' '.join(metric.show(rest.scores.get(metric.name))).strip()}"
                    for metric in headline_metrics()
                ]
                others = f"on the other {plural(rest.images, 'image')}: {', '.join(scores)}"
            yield (
                f"{len(found.names):,} of these {plural(len(self.predictions), 'image')} were "
                f"trained on ({kinds}), such as {found.duplicates[0].other_name}, so the metrics "
                f"are too high; {others}."
            )
        if found.unreadable:
            yield (
                f"{plural(found.unreadable, 'training image')} could not be read, so only exact "
                "copies of them were searched for."
            )

    def _count_warnings(self) -> Iterator[str]:
        few = [s for s in self.metrics.per_class if s.support < FEW_IMAGES]
        if few:
            names = ", ".join(f"{scores.name} ({scores.support:,})" for scores in few)
            yield f"Fewer than {FEW_IMAGES} images of {names}: their metrics are unreliable."
        if self.groups and self.groups.small:
            small = self.groups.small
            named = [f"{group.name} ({group.images:,})" for group in small[:_MAX_GROUPS]]
            named += [f"{len(small) - _MAX_GROUPS:,} more"] if len(small) > _MAX_GROUPS else []
            yield (
                f"Fewer than {FEW_IMAGES} images of the groups {', '.join(named)} by "
                f"{self.groups.column}: their metrics are unreliable."
            )

    def _baseline_warnings(self) -> Iterator[str]:
        if self.majority is None:
            return
        labels, predicted = self.predictions.labels, self.predictions.predicted
        constant = np.full_like(predicted, list(self.classes).index(self.majority))
        gain = compare(labels, constant, predicted).accuracy
        if gain.value <= 0:
            yield f"The model is no better than the majority-class baseline ({self.majority})."
        elif gain.conclusion == NOT_BETTER:
            yield (
                f"The model is {NOT_BETTER} in accuracy than the majority-class baseline "
                f"({self.majority}): the 95 % interval of the difference contains 0."
            )

    def _trained_on_to_dict(self) -> dict[str, Any] | None:
        found, rest = self.trained_on, self.unseen_metrics
        if not found.duplicates and not found.unreadable:
            return None
        return {
            **found.to_dict(),
            "metrics_without": rest.to_dict() if rest else None,
            "intervals_without": rest.intervals_to_dict() if rest else None,
        }
