"""Laws of doing a training again: it comes to the same, and what differs is told."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from configs.schema import ExperimentConfig
from ensemble.commands.train.__main__ import main as train
from ensemble.experiment import fit
from ensemble.runs.reproduction import compare_traces, read_trace

MakeConfig = Callable[..., ExperimentConfig]


@pytest.fixture
def original(make_config: MakeConfig) -> Path:
    return fit(make_config().model_copy(update={"name": "original"})).run.folder


def test_a_run_is_reproduced_until_its_images_change(original, colours_folder, capsys, caplog):
    again = ["--reproduce", str(original), "--name"]

    assert train([*again, "second"]) == 0
    assert "reproduced: 4 epochs agree to 6 digits" in capsys.readouterr().out
    assert "not as in" not in caplog.text

    Image.new("RGB", (24, 24)).save(colours_folder / "red" / "00.png")
    caplog.clear()
    assert train([*again, "third"]) == 1
    told = capsys.readouterr().out.splitlines()
    first = told[told.index("not reproduced:") + 1]
    assert first.strip().startswith("epoch 1, ")
    assert any(line.strip().startswith(("data train", "data validation")) for line in told)
    warned = next(i for i, text in enumerate(caplog.messages) if "not as in" in text)
    assert any(text.startswith("epoch 1 of 4") for text in caplog.messages[warned:])


def write_trace(folder: Path, losses: list[object], **record: object) -> Path:
    folder.mkdir()
    (folder / "config.yaml").touch()
    with (folder / "history.csv").open("w", newline="") as file:
        rows = ([epoch, "head", loss, epoch * 0.7] for epoch, loss in enumerate(losses, 1))
        csv.writer(file).writerows([["epoch", "phase", "loss", "seconds"], *rows])
    values = {"data": {"train": {"sha256": "a"}}, "weights": {}, "backend": "jax", **record}
    (folder / "environment.json").write_text(json.dumps(values))
    return folder


def test_epochs_agree_to_six_digits_and_times_do_not_count(tmp_path):
    losses = [1.0, "nan", 0.123456789]
    first = read_trace(write_trace(tmp_path / "a", losses))
    near = read_trace(write_trace(tmp_path / "b", [1.0000004, "nan", 0.12345684]))
    far = read_trace(write_trace(tmp_path / "c", [1.0, 2.0, 0.5]))

    assert compare_traces(first, near).differences == []
    assert compare_traces(first, far).differences == ["epoch 2, loss: nan then, 2 now"]


def test_an_epoch_less_is_a_difference_and_a_version_a_remark(tmp_path):
    first = read_trace(write_trace(tmp_path / "a", [1, 2], packages={"keras": "3.15.1"}))
    second = read_trace(
        write_trace(tmp_path / "b", [1], packages={"keras": "4.0"}, data={"train": {"sha256": "b"}})
    )

    verdict = compare_traces(first, second)

    assert verdict.differences == [
        "epochs: 2 then, 1 now", "data train sha256: a then, b now",
    ]  # fmt: skip
    assert verdict.remarks == ["packages keras: 3.15.1 then, 4.0 now"]


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--epochs", "3"], "--reproduce trains with the settings of the run"),
        (["--config", "three_class"], "--reproduce trains with the settings of the run"),
        (["--resume", "elsewhere"], "--resume continues with the settings of the run"),
    ],
)
def test_other_settings_are_refused(flags, told, tmp_path, capsys):
    folder = write_trace(tmp_path / "a", [1])

    assert train(["--reproduce", str(folder), *flags]) == 2
    errors = capsys.readouterr().err
    assert told in errors
    assert errors.count("\n") == 1


def test_a_damaged_or_missing_run_costs_a_sentence(tmp_path, capsys):
    folder = write_trace(tmp_path / "a", [1])
    for name, text, told in (
        ("history.csv", "epoch,loss\n1,much\n", "The epochs of"),
        ("history.csv", "", "The epochs of"),
        ("environment.json", "{", "environment.json cannot be read"),
        ("environment.json", "[]", "environment.json cannot be read"),
        ("fusion.json", "{}", "was fused of other runs"),
    ):
        damaged = shutil.copytree(folder, tmp_path / "damaged")
        (damaged / name).write_text(text)
        assert train(["--reproduce", str(damaged)]) == 2
        errors = capsys.readouterr().err
        assert told in errors
        assert errors.count("\n") == 1
        shutil.rmtree(damaged)

    assert train(["--reproduce", str(tmp_path / "none")]) == 2
    assert "is not a finished run: it has no config.yaml" in capsys.readouterr().err
