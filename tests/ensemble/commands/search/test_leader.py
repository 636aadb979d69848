"""What the best trial has learned is there when the winner is made, and nothing else is."""

from pathlib import Path

import numpy as np
import pytest

from configs.errors import RunError
from ensemble.commands.search.leader import drop, drop_beaten, keep_if_best, take_over
from ensemble.commands.search.study import Study, TrialRecord
from ensemble.runs.run import Run
from ensemble.training.history import History, Progress

ORIGIN = {"data": {"train": "a"}, "weights": {"small": "b"}}


def progress(value: float) -> Progress:
    history = History("val_accuracy").with_epoch("head", {"val_accuracy": value}, 1)
    return Progress(history, "head", [{}], [], [], [np.full(3, value)], finished=True)


def end(study: Study, number: int, value: float, objective: str = "val_accuracy") -> None:
    record = TrialRecord(number, "completed", {}, metrics={objective: value})
    keep_if_best(study, objective, record, progress(value), ORIGIN)
    study.write(record)
    drop_beaten(study, objective)


@pytest.fixture
def study(tmp_path: Path) -> Study:
    study = Study(tmp_path)
    for number in range(6):
        study.trial(number).folder.mkdir(parents=True)
    return study


def kept(study: Study) -> list[str]:
    return sorted(path.parent.name for path in study.folder.glob("trials/*/checkpoint.npz"))


@pytest.mark.parametrize(
    ("objective", "values", "leaders"),
    [
        ("val_accuracy", {0: 0.5, 1: 0.7, 2: 0.6, 3: 0.8}, ["0000", "0001", "0001", "0003"]),
        ("val_loss", {0: 0.5, 1: 0.7, 2: 0.6, 3: 0.4}, ["0000", "0000", "0000", "0003"]),
        ("val_accuracy", {2: 0.5, 1: 0.5, 3: 0.5}, ["0002", "0001", "0001"]),
    ],
    ids=["most", "least", "equal"],
)
def test_the_best_trial_alone_is_kept(objective, values, leaders, study):
    for (number, value), leader in zip(values.items(), leaders, strict=True):
        end(study, number, value, objective)

        assert kept(study) == [leader]
        assert int(leader) == study.best(objective)[0].number
    assert take_over(study.trial(int(leaders[-1])), {**ORIGIN, "seed": 1}).best[0].shape == (3,)


def test_a_trial_that_has_not_ended_keeps_its_own(study):
    unended = TrialRecord(4, "completed", {}, metrics={"val_accuracy": 0.7})
    end(study, 0, 0.5)
    keep_if_best(study, "val_accuracy", unended, progress(0.7), ORIGIN)
    end(study, 1, 0.9)

    assert kept(study) == ["0001", "0004"]


def test_what_started_from_something_else_is_not_taken_over(study, caplog):
    end(study, 0, 0.5)
    folder = study.trial(0)

    assert take_over(folder, {**ORIGIN, "data": {"train": "other"}}) is None
    assert take_over(folder, {}) is None
    assert take_over(study.trial(1), ORIGIN) is None
    (folder.folder / "checkpoint.npz").write_bytes(b"PK damaged")
    assert take_over(folder, ORIGIN) is None
    drop(folder)
    assert not list(folder.folder.glob("[!t]*"))


def test_a_full_disk_costs_a_warning_and_not_the_trial(study, monkeypatch, caplog):
    def fail(self, name, write):
        raise RunError("no space left")

    monkeypatch.setattr(Run, "save", fail)
    record = TrialRecord(0, "completed", {}, metrics={"val_accuracy": 0.5})

    keep_if_best(study, "val_accuracy", record, progress(0.5), ORIGIN)

    assert "no space left" in caplog.text
    assert kept(study) == []
