"""Runs and trials as candidates of a comparison: settings, predictions and epochs of each."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from configs.errors import RunError
from configs.fields import leaf_paths, options_model
from configs.schema import ExperimentConfig
from ensemble.commands.search.study import completed_trials
from ensemble.metrics.predictions import Predictions, read_predictions
from ensemble.runs.epochs import Epochs, read_epochs
from ensemble.runs.run import Run, absolute_paths
from heads.registry import HEADS

FUSION_FILE = "fusion.json"

_WITHOUT_EFFECT = (
    *("name", "output", "plugins", "features.directory"),
    *("training.devices", "training.trackers"),
)


@dataclass(frozen=True, eq=False)
class Candidate:
    """A run, or a trial called "SEARCH/NUMBER".

    A fused run has a record of `ensemble.fuse`, no epochs, and the settings of its first member.
    """

    name: str
    run: Run
    config: ExperimentConfig
    predictions: Predictions
    epochs: Epochs = field(default_factory=Epochs)
    best_epoch: int | None = None
    fusion: Mapping[str, Any] | None = None

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Dotted path to value of every setting that affects the result."""
        if self.fusion is not None:
            names = "+".join(member.name for member in self.members)
            return {"model.branches": f"{self.fusion['method']} of {names}"}
        return settings_of(self.config)

    @property
    def members(self) -> list[Path]:
        """Folders of the runs that were fused into this one."""
        named = self.fusion["members"] if self.fusion is not None else ()
        return [(self.run.folder / member).resolve() for member in named]

    @property
    def branches(self) -> list[str]:
        """Labels of the branches."""
        if self.fusion is not None:
            return list(self.fusion["branches"])
        return [branch.label for branch in self.config.model.branches]

    @property
    def setting(self) -> str:
        """All settings that affect the result except the seed, as a text that can be compared."""
        rest = {path: value for path, value in self.settings.items() if path != "seed"}
        return json.dumps(rest, sort_keys=True)

    @property
    def training_accuracy(self) -> float | None:
        """Training accuracy of the best epoch; None if it is not known."""
        values = self.epochs.values.get("accuracy")
        return values[self.best_epoch - 1] if values and self.best_epoch else None


def settings_of(config: ExperimentConfig) -> dict[str, Any]:
    """Returns dotted path to value of every setting that affects a result, heads' defaults too."""
    nested = absolute_paths(config.model_dump(mode="json"))
    settings = {}
    for path in leaf_paths(ExperimentConfig):
        if path not in _WITHOUT_EFFECT:
            value: Any = nested
            for part in path.split("."):
                value = value[part]
            settings[path] = value
    head = settings.pop("model.head")
    if head["name"] in HEADS:
        options = options_model(HEADS.get(head["name"]).build).model_fields.items()
        head = {**{name: info.default for name, info in options}, **head}
    return {**settings, **{f"model.head.{name}": value for name, value in head.items()}}


def read_candidates(folders: Sequence[Path]) -> list[Candidate]:
    """Returns the runs and trials in some folders, the trials of a search best first.

    Args:
        folders: Runs, trials or searches.

    Raises:
        RunError: If a folder holds none of them or is damaged.
    """
    found: dict[Path, Candidate] = {}
    for folder in folders:
        for candidate in (
            _read_search(folder) if (folder / "search.yaml").is_file() else [_read_run(folder)]
        ):
            found.setdefault(candidate.run.folder.resolve(), candidate)
    return list(found.values())


def read_fusion(run: Run) -> dict[str, Any] | None:
    """Returns the record of `ensemble.fuse`, None unless it made the run.

    Raises:
        RunError: If the record is damaged.
    """
    path = run.folder / FUSION_FILE
    if not path.exists():
        return None
    try:
        record = json.loads(path.read_text("utf-8"))
        return {name: record[name] for name in ("method", "members", "branches")}
    except (OSError, ValueError, KeyError) as error:
        raise RunError(f"{path} cannot be read ({error}). Fuse the runs again.") from error


def _read_search(folder: Path) -> list[Candidate]:
    trials = completed_trials(folder)
    if not trials:
        raise RunError(f"No trial of {folder} was completed. Resume that search.")
    return [_read(trial, f"{folder.resolve().name}/{trial.name}") for trial in trials]


def _read_run(folder: Path) -> Candidate:
    missing = [name for name in ("config.yaml", "predictions.csv") if not (folder / name).is_file()]
    if missing:
        raise RunError(
            f"{folder} is neither a finished run nor a search: it has no "
            f"{' and no '.join(missing)}. Name a folder such as runs/NAME or runs/search-NAME."
        )
    run = Run(folder)
    is_trial = folder.resolve().parent.name == "trials"
    return _read(run, f"{folder.resolve().parents[1].name}/{run.name}" if is_trial else run.name)


def _read(run: Run, name: str) -> Candidate:
    epochs, best_epoch = read_epochs(run), None
    if epochs.phases:
        training = run.read_json("report.json").get("training") or {}
        best_epoch = training.get("best_epoch")
    return Candidate(
        name,
        run,
        run.config,
        read_predictions(run.folder),
        epochs,
        best_epoch,
        read_fusion(run),
    )
