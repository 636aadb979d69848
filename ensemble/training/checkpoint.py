"""The file from which an interrupted training resumes."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from configs.errors import RunError
from ensemble.runs.run import Run
from ensemble.training.history import History, Progress

_FILE = "checkpoint.npz"
_LISTS = ("model", "optimizer", "best")


def write_checkpoint(run: Run, progress: Progress) -> None:
    """Writes the state of a training, atomically.

    Raises:
        RunError: If it cannot be written, a full disk included.
    """
    record = {
        "history": asdict(progress.history),
        "phase": progress.phase,
        "callbacks": progress.callbacks,
        "finished": progress.finished,
    }
    arrays = {
        f"{name}/{index}": value
        for name in _LISTS
        for index, value in enumerate(getattr(progress, name))
    }
    run.save(_FILE, lambda path: np.savez(path, record=np.array(json.dumps(record)), **arrays))


def read_checkpoint(run: Run) -> Progress | None:
    """Returns the state of a training, None if its first epoch was never finished.

    Raises:
        RunError: If the file is damaged.
    """
    path = run.folder / _FILE
    if not has_checkpoint(run):
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            record = json.loads(str(file["record"]))
            lists: dict[str, Any] = {name: _read_list(file, name) for name in _LISTS}
        history = History(**record.pop("history"))
        return Progress(history=history, **record, **lists)
    except Exception as error:  # damage shows in many kinds
        raise RunError(
            f"{path} is damaged ({type(error).__name__}). Remove it to train from the start."
        ) from error


def has_checkpoint(run: Run) -> bool:
    """Returns whether a training has begun and not finished."""
    return (run.folder / _FILE).exists()


def remove_checkpoint(run: Run) -> None:
    """Removes the file of a finished training."""
    if run.writes:
        (run.folder / _FILE).unlink(missing_ok=True)


def _read_list(file: Mapping[str, Any], name: str) -> Sequence[np.ndarray]:
    count = sum(key.startswith(f"{name}/") for key in file)
    return [file[f"{name}/{index}"] for index in range(count)]
