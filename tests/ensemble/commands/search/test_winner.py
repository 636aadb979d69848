"""The checkpoint of the best trial exists when the winner is made, and no other does."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("keras_tuner")

from configs.errors import RunError
from ensemble.commands.search.study import Study, TrialRecord
from ensemble.commands.search.winner import _read_kept, drop_beaten, keep_if_best
from ensemble.runs.run import Run
from ensemble.training.checkpoint import read_checkpoint
from ensemble.training.history import History, Progress


def progress(value: float) -> Progress:
    history = History("val_accuracy").with_epoch("head", {"val_accuracy": value}, 1)
    return Progress(history, "head", [{}], [], [], [np.full(3, value)], finished=True)


def end(study: Study, number: int, value: float, objective: str = "val_accuracy") -> None:
    record = TrialRecord(number, "completed", {}, metrics={objective: value})
    keep_if_best(study, objective, record, progress(value))
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
    ("objective", "values", "best"),
    [
        ("val_accuracy", {0: 0.5, 1: 0.7, 2: 0.6, 3: 0.8}, ["0000", "0001", "0001", "0003"]),
        ("val_loss", {0: 0.5, 1: 0.7, 2: 0.6, 3: 0.4}, ["0000", "0000", "0000", "0003"]),
        ("val_accuracy", {2: 0.5, 1: 0.5, 3: 0.5}, ["0002", "0001", "0001"]),
    ],
    ids=["most", "least", "equal"],
)
def test_the_best_trial_alone_is_kept(objective, values, best, study):
    for (number, value), number_of_best in zip(values.items(), best, strict=True):
        end(study, number, value, objective)

        assert kept(study) == [number_of_best]
        assert int(number_of_best) == study.best(objective)[0].number
    assert read_checkpoint(study.trial(int(best[-1]))).best[0].shape == (3,)


def test_a_trial_that_has_not_ended_keeps_its_own(study):
    unended = TrialRecord(4, "completed", {}, metrics={"val_accuracy": 0.7})
    end(study, 0, 0.5)
    keep_if_best(study, "val_accuracy", unended, progress(0.7))
    end(study, 1, 0.9)

    assert kept(study) == ["0001", "0004"]


def test_without_a_readable_checkpoint_the_winner_is_trained_again(study, caplog):
    caplog.set_level("INFO")
    end(study, 0, 0.5)
    trial = study.trial(0)
    (trial.folder / "checkpoint.npz").write_bytes(b"PK damaged")

    assert _read_kept(trial) is None
    assert _read_kept(study.trial(1)) is None
    for name in ("0000", "0001"):
        assert f"trial {name} has no checkpoint: the winner is trained again" in caplog.text


def test_a_full_disk_costs_a_warning_and_not_the_trial(study, monkeypatch, caplog):
    def fail(self, name, write):
        raise RunError("no space left")

    monkeypatch.setattr(Run, "save", fail)
    record = TrialRecord(0, "completed", {}, metrics={"val_accuracy": 0.5})

    keep_if_best(study, "val_accuracy", record, progress(0.5))

    assert "no space left" in caplog.text
    assert kept(study) == []
