"""Runs and trials as candidates of a comparison: settings, answers and epochs of each."""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from configs.errors import RunError
from configs.fields import leaf_paths, options_model
from configs.files import read_config
from configs.schema import ExperimentConfig
from ensemble.commands.compare.recorded_answers import Answers, read_answers
from ensemble.commands.search.study import DIRECTIONS, Study
from ensemble.runs.run import Run, absolute_paths
from heads.registry import HEADS

FUSION_FILE = "fusion.json"

_DECIDES_NOTHING = (
    *("name", "output", "plugins", "features.directory"),
    *("training.devices", "training.trackers"),
)


@dataclass(frozen=True, eq=False)
class Candidate:
    """A run or a trial.

    Args:
        name: The run's name, or "SEARCH/NUMBER".
        run: Its folder.
        config: What made it; of a fused run, what made its first member.
        answers: To its validation images.
        history: Name such as "val_accuracy" to one value an epoch; empty for a fused run.
        best_epoch: Counted from 1; None for a fused run.
        fusion: What `ensemble.fuse` recorded; None unless it made the run.
    """

    name: str
    run: Run
    config: ExperimentConfig
    answers: Answers
    history: Mapping[str, Sequence[float]] = field(default_factory=dict)
    best_epoch: int | None = None
    fusion: Mapping[str, Any] | None = None

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Dotted path to value, for all that decides a result; a head's options in full."""
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
        """All that decides the result but the seed, as a text that can be compared."""
        rest = {path: value for path, value in self.settings.items() if path != "seed"}
        return json.dumps(rest, sort_keys=True)

    @property
    def training_accuracy(self) -> float | None:
        """That of the best epoch, as training measured it; None if it is not known."""
        values = self.history.get("accuracy")
        return values[self.best_epoch - 1] if values and self.best_epoch else None


def settings_of(config: ExperimentConfig) -> dict[str, Any]:
    """Returns dotted path to value for every leaf that decides a result."""
    nested = absolute_paths(config.model_dump(mode="json"))
    settings = {}
    for path in leaf_paths(ExperimentConfig):
        if path not in _DECIDES_NOTHING:
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
    """Returns what `ensemble.fuse` recorded of a run, None unless it made the run.

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
    objective = read_config(str(folder / "search.yaml")).get("search", {}).get("objective")
    study = Study(folder)
    records = study.best(objective) if objective in DIRECTIONS else study.records()
    done = [record.number for record in records if record.status == "completed"]
    if not done:
        raise RunError(f"No trial of {folder} was completed. Go on with that search.")
    title = folder.resolve().name
    return [_read(study.trial(number), f"{title}/{study.trial(number).name}") for number in done]


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
    history, best_epoch = _read_history(run)
    return Candidate(
        name,
        run,
        run.config,
        read_answers(run.folder),
        history,
        best_epoch,
        read_fusion(run),
    )


def _read_history(run: Run) -> tuple[dict[str, list[float]], int | None]:
    path = run.folder / "history.csv"
    if not path.exists():
        return {}, None
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        history = {
            name: [float(row[name]) for row in rows]
            for name in (rows[0] if rows else {})
            if name not in {"epoch", "phase"}
        }
        report = json.loads((run.folder / "report.json").read_text("utf-8"))
        return history, int(report["training"]["best_epoch"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"The epochs of {run.folder} cannot be read ({error}).") from error
