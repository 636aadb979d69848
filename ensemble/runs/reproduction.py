"""Comparison of a training with its reproduction: epochs, data, weights and versions."""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.errors import RunError
from ensemble.runs.run import Run

log = logging.getLogger(__name__)

_DIGITS = 6
_NEEDED = ("config.yaml", "history.csv", "environment.json")
WEIGHTED = "weights_and_votes_sha256"  # in no record of an earlier version
_INPUTS = ("data", "weights")  # of the record: what a history depends on besides settings
_VERSIONS = ("backend", "packages", "python", "platform", "devices", "git_commit")


@dataclass(frozen=True, eq=False)
class Trace:
    """What is compared of a training.

    Args:
        folder: The run's folder.
        history: Name such as "val_loss" to one value per epoch, without times.
        record: Its inputs, as in `environment.json`.
    """

    folder: Path
    history: Mapping[str, Sequence[float]]
    record: Mapping[str, Any]

    @property
    def epochs(self) -> int:
        """Number of epochs."""
        return len(next(iter(self.history.values()), ()))

    def warn_of_changes(self, record: Mapping[str, Any]) -> None:
        """Warns, before a reproduction begins, of inputs that differ."""
        for change in _changes(self.record, record, _INPUTS):
            log.warning("not as in %s, so epochs will differ: %s", self.folder, change)


@dataclass(frozen=True)
class Comparison:
    """Whether a reproduction has the same epochs.

    Args:
        epochs: Number of epochs compared.
        differences: Differences in epochs, data and weights, the first one first.
        remarks: Other differences, such as versions.
    """

    epochs: int
    differences: Sequence[str]
    remarks: Sequence[str]

    def summary(self) -> str:
        """Returns the result in a few lines."""
        if self.differences:
            lines = ["not reproduced:", *self.differences]
        else:
            lines = [
                f"reproduced: {self.epochs} epochs agree to {_DIGITS} digits, from the same data "
                "and weights"
            ]
        remarks = [f"differs too: {remark}" for remark in self.remarks]
        return "\n  ".join([*lines, *remarks])


def read_trace(folder: Path) -> Trace:
    """Reads a finished training.

    Raises:
        RunError: If the folder holds none, or it is damaged.
    """
    run = Run(folder)
    if (folder / "fusion.json").exists():
        raise RunError(
            f"{folder} was fused of other runs, not trained. Name one of those, or fuse them again "
            "with python -m ensemble.fuse."
        )
    Run.open(folder, *_NEEDED)
    rows, record = run.read_table("history.csv"), run.read_json("environment.json")
    left_out = {"epoch", "phase", "seconds"}
    try:
        history = {
            name: [float(row[name]) for row in rows] for name in rows[0] if name not in left_out
        }
    except (IndexError, ValueError) as error:
        raise RunError(f"The epochs of {folder} cannot be read ({error}).") from error
    return Trace(folder, history, record)


def same_data(recorded: Mapping[str, Any], data: Mapping[str, Any]) -> bool:
    """Returns whether recorded fingerprints are those of data.

    Records of earlier versions have no fingerprint of weights and votes.

    Args:
        recorded: What `records.record_data` returned earlier.
        data: What it returns now.
    """
    return {part: {**now, **recorded.get(part, {})} for part, now in data.items()} == data


def compare_traces(first: Trace, second: Trace) -> Comparison:
    """Compares a training with its reproduction."""
    changes = _changes(first.record, second.record, _INPUTS)
    return Comparison(
        second.epochs,
        [*_compare_histories(first, second), *changes],
        _changes(first.record, second.record, _VERSIONS),
    )


def _compare_histories(first: Trace, second: Trace) -> Iterator[str]:
    """Yields the first value that differs, and different numbers of epochs."""
    if first.history.keys() != second.history.keys():
        yield f"figures: {', '.join(first.history)} then, {', '.join(second.history)} now"
        return
    for epoch in range(min(first.epochs, second.epochs)):
        for name, values in first.history.items():
            then, now = values[epoch], second.history[name][epoch]
            if not _agree(then, now):
                yield f"epoch {epoch + 1}, {name}: {then:.9g} then, {now:.9g} now"
                return
    if first.epochs != second.epochs:
        yield f"epochs: {first.epochs} then, {second.epochs} now"


def _agree(first: float, second: float) -> bool:
    if math.isnan(first) or math.isnan(second):
        return math.isnan(first) and math.isnan(second)
    return math.isclose(first, second, rel_tol=10**-_DIGITS, abs_tol=1e-9)


def _changes(
    first: Mapping[str, Any], second: Mapping[str, Any], parts: Sequence[str]
) -> list[str]:
    """Returns a line per value that differs in some parts of two records."""
    lines = []
    for part in parts:
        then, now = _leaves(first.get(part), part), _leaves(second.get(part), part)
        for path in sorted({*then, *now}):
            unrecorded = path.endswith(WEIGHTED) and path not in then
            if then.get(path) != now.get(path) and not unrecorded:
                lines.append(f"{path}: {_show(then.get(path))} then, {_show(now.get(path))} now")
    return lines


def _leaves(value: Any, path: str = "") -> dict[str, Any]:
    """Returns the values of a nested record by their paths."""
    if not isinstance(value, dict):
        return {path: value}
    leaves = {}
    for name, inner in value.items():
        leaves.update(_leaves(inner, f"{path} {name}".strip()))
    return leaves


def _show(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "none" if value is None else str(value)[:16]  # enough of a checksum
