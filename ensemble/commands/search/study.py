"""The folder of a search: its settings, and a record of every trial."""

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from configs.errors import RunError
from configs.files import read_config, write_config
from configs.search import SearchExperiment
from ensemble.cli.checks import load_plugins
from ensemble.commands.search.spaces import label
from ensemble.metrics.metrics import objectives
from ensemble.runs.run import Run
from ensemble.system.locks import LockedError, locked

_DATA = "data.json"
_LOCK = "lock"
_ATTEMPTS = "attempts"  # a byte for each process that started the trial
_PATIENCE = 2.0  # seconds for another process to write the settings or to free a lock


@dataclass(frozen=True)
class TrialRecord:
    """The result of a trial.

    Args:
        number: Counted from 0.
        status: "completed" or "failed".
        values: Dotted leaf to its value.
        metrics: Name such as "val_macro_f1" to its value; empty if it failed.
        reason: Why it failed, in a line.
        epochs: Number of epochs trained.
        best_epoch: The epoch that was evaluated, counted from 1.
        seconds: From its proposal to its record.
        overhead: Those of them that were not spent on training.
        history: Name of a metric to its value in each epoch.
    """

    number: int
    status: str
    values: Mapping[str, Any]
    metrics: Mapping[str, float] = field(default_factory=dict)
    reason: str | None = None
    epochs: int = 0
    best_epoch: int = 0
    seconds: float = 0.0
    overhead: float = 0.0
    history: Mapping[str, Sequence[float]] = field(default_factory=dict)

    def rank(self, objective: str) -> tuple[float, int]:
        """Returns the sort key of a completed trial: the best one has the lowest."""
        value = self.metrics[objective]
        return -value if objectives()[objective] == "max" else value, self.number


class Study:
    """The folder of a search.

    It holds `search.yaml` (the settings), `data.json` (what the trials start from),
    `oracle.json` (the tuner's state), `trials.csv`, `trials/NNNN/` (each trial's settings,
    history, report and predictions, and the checkpoint of the best one) and the winner's
    run folder.

    Args:
        folder: An existing folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._known: dict[Path, TrialRecord] = {}

    @classmethod
    def open(cls, config: SearchExperiment) -> "Study":
        """Opens the folder of a search, to begin or to resume it.

        Raises:
            RunError: If the folder holds something else, or cannot be written.
        """
        name = config.name or f"search-{_fingerprint(config)}"
        study = cls(config.output / name)
        path = study.folder / "search.yaml"
        settings = _settings(config)
        if study.folder.exists() and any(study.folder.iterdir()):
            if not _appears(path):
                raise RunError(f"{study.folder} exists and holds no search. Choose another --name.")
            _check_same(settings, path)
            return study
        try:
            study.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(
                f"The folder {study.folder} cannot be made ({error.strerror}). "
                "Choose another --output or --name."
            ) from error
        Run(study.folder).write("search.yaml", write_config(settings))
        return study

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other searches out of the folder for the length of a `with` block.

        Raises:
            RunError: If another search is at work in it.
        """
        try:
            with locked(self.folder / _LOCK, timeout=_PATIENCE):
                for path in self.folder.glob(f"trials/*/{_ATTEMPTS}"):
                    path.unlink()
                yield
        except LockedError as error:
            raise RunError(
                f"Another search ({error}) is at work in {self.folder}. Wait for its end, or "
                "choose another --name."
            ) from error

    @contextmanager
    def locked_by_worker(self, name: str) -> Iterator[None]:
        """Marks a worker as alive for the length of a `with` block.

        Raises:
            RunError: If another worker of that name is.
        """
        try:
            with locked(self._worker_lock(name), timeout=_PATIENCE):
                yield
        except LockedError as error:
            raise RunError(
                f"{error} works as {name} already. Give each worker a KERASTUNER_TUNER_ID of its "
                "own."
            ) from error

    def has_worker(self, name: str) -> bool:
        """Returns whether the worker is alive."""
        return _is_held(self._worker_lock(name))

    def has_chief(self) -> bool:
        """Returns whether a process leads the search at the moment."""
        return _is_held(self.folder / _LOCK)

    def check_origin(self, origin: Mapping[str, Any]) -> None:
        """Compares what trials start from now with what they started from at first.

        Args:
            origin: Backend, fingerprints of images and labels, and weights.

        Raises:
            RunError: If they differ.
        """
        folder = Run(self.folder)
        if not (folder.folder / _DATA).exists():
            folder.write_json(_DATA, origin)
        kept = folder.read_json(_DATA)
        if kept.keys() != origin.keys():
            raise RunError(
                f"The search in {self.folder} was begun by an earlier version. Choose another "
                "--name."
            )
        differing = [name for name in origin if kept[name] != origin[name]]
        if differing:
            raise RunError(
                f"The search in {self.folder} began with different {' and '.join(differing)}. "
                "Restore them, or choose another --name."
            )

    def trial(self, number: int) -> Run:
        """Returns the folder of a trial, which may be empty."""
        return Run(self.folder / "trials" / f"{number:04}")

    def count_attempt(self, number: int) -> int:
        """Returns how many processes have started a trial without recording it, this one too."""
        folder = self.trial(number).folder
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / _ATTEMPTS).open("ab") as file:
            file.write(b".")
            return file.tell()

    def write(self, record: TrialRecord) -> None:
        """Writes the record of a trial."""
        run = self.trial(record.number)
        run.write_json("trial.json", vars(record))
        (run.folder / _ATTEMPTS).unlink(missing_ok=True)

    def read(self, number: int) -> TrialRecord | None:
        """Returns the record of a trial, None if it has none yet."""
        path = self.trial(number).folder / "trial.json"
        if path not in self._known:
            try:
                self._known[path] = TrialRecord(**json.loads(path.read_text("utf-8")))
            except (OSError, ValueError, TypeError):
                return None
        return self._known[path]

    def records(self) -> list[TrialRecord]:
        """Returns the recorded trials, by number."""
        folders = sorted((self.folder / "trials").glob("[0-9]*"))
        found = (self.read(int(folder.name)) for folder in folders)
        return [record for record in found if record is not None]

    def best(self, objective: str) -> list[TrialRecord]:
        """Returns the completed trials, the best first."""
        done = [record for record in self.records() if record.status == "completed"]
        return sorted(done, key=lambda record: record.rank(objective))

    def write_table(self) -> Path:
        """Writes `trials.csv`, a line for each recorded trial."""
        records = self.records()
        leaves = list(dict.fromkeys(path for record in records for path in record.values))
        columns = ["trial", "status", *leaves, *objectives()]
        columns += ["epochs", "best_epoch", "seconds", "overhead", "reason"]
        return Run(self.folder).write_table("trials.csv", columns, _rows(records, leaves))

    def _worker_lock(self, name: str) -> Path:
        return self.folder / f"{name}.lock"


def completed_trials(folder: Path) -> list[Run]:
    """Returns the folders of a search's completed trials, the best first.

    Raises:
        RunError: If the search's settings are unreadable.
    """
    settings = read_config(str(folder / "search.yaml"))
    load_plugins(settings.get("plugins", []))  # which may register the objective
    objective = settings.get("search", {}).get("objective")
    study = Study(folder)
    records = study.best(objective) if objective in objectives() else study.records()
    return [study.trial(record.number) for record in records if record.status == "completed"]


def _is_held(path: Path) -> bool:
    try:
        with locked(path, timeout=0):
            return False
    except LockedError:
        return True


def _appears(path: Path) -> bool:
    """Returns whether a file exists, or soon does: another process may be about to write it."""
    end = time.monotonic() + _PATIENCE
    while not path.exists() and time.monotonic() < end:
        time.sleep(0.05)
    return path.exists()


def _rows(records: Sequence[TrialRecord], leaves: Sequence[str]) -> Iterator[list[object]]:
    for record in records:
        yield [
            record.number,
            record.status,
            *(label(record.values[leaf]) if leaf in record.values else "" for leaf in leaves),
            *(record.metrics.get(name, "") for name in objectives()),
            record.epochs,
            record.best_epoch,
            f"{record.seconds:.3f}",
            f"{record.overhead:.3f}",
            record.reason or "",
        ]


def _settings(config: SearchExperiment) -> dict[str, Any]:
    """Returns the settings that decide a search's result."""
    settings = config.model_dump(mode="json", exclude_none=True, exclude={"name", "output"})
    settings["features"].pop("directory", None)
    settings["search"].pop("workers", None)
    for name in ("spaces", "grids"):  # one stands in place of the other
        if not settings["search"][name]:
            del settings["search"][name]
    return settings


def _fingerprint(config: SearchExperiment) -> str:
    text = json.dumps(_settings(config), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _check_same(settings: dict[str, Any], path: Path) -> None:
    kept, asked = dict(_flatten(read_config(str(path)))), dict(_flatten(settings))
    differing = sorted(name for name in {*kept, *asked} if kept.get(name) != asked.get(name))
    if differing:
        first = differing[0]
        raise RunError(
            f"{path.parent} holds another search: `{first}` was {kept.get(first)} there and is "
            f"{asked.get(first)} now. Choose another --name, or resume it with --config {path}."
        )


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
