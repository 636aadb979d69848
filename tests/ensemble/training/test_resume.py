"""A training that was broken off goes on as if nothing had happened."""

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from configs.errors import RunError
from configs.files import write_config
from configs.schema import ExperimentConfig
from ensemble import experiment
from ensemble.commands.train.__main__ import main as train
from ensemble.experiment import fit, resume
from ensemble.runs.run import Run
from ensemble.training.checkpoint import read_checkpoint

pytestmark = pytest.mark.backend

MakeConfig = Callable[..., ExperimentConfig]
ROOT = Path(__file__).resolve().parents[3]


class KilledError(Exception):
    """Stands for the end of the process."""


def history_of(run: Run) -> list[dict[str, float]]:
    with (run.folder / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    numbers = []
    for row in rows:
        del row["phase"], row["seconds"]
        numbers.append({name: float(value) for name, value in row.items()})
    return numbers


def assert_same_run(run: Run, expected: Run) -> None:
    history, expected_history = history_of(run), history_of(expected)
    assert len(history) == len(expected_history)
    for row, expected_row in zip(history, expected_history, strict=True):
        assert row == pytest.approx(expected_row, abs=1e-4)
    weights, expected_weights = (r.load_model().model.get_weights() for r in (run, expected))
    for values, expected_values in zip(weights, expected_weights, strict=True):
        np.testing.assert_allclose(values, expected_values, rtol=1e-4, atol=1e-5)


def break_off(monkeypatch, epoch: int) -> None:
    """Ends the training once the checkpoint of an epoch is written."""
    write = experiment.write_checkpoint

    def write_and_die(run, progress):
        write(run, progress)
        if len(progress.history) == epoch:
            raise KilledError

    monkeypatch.setattr(experiment, "write_checkpoint", write_and_die)


@pytest.mark.parametrize(
    ("settings", "epoch"),
    [
        ({"epochs": 6, "patience": 2, "monitor": "val_loss", "learning_rate": 0.05}, 3),
        ({"epochs": 6, "schedule": "plateau", "monitor": "val_loss", "learning_rate": 0.1}, 4),
        ({"epochs": 5, "schedule": "cosine", "warmup_epochs": 2, "ema": 0.9}, 2),
        ({"epochs": 4, "balance": "sampling", "label_smoothing": 0.1, "clip_norm": 1.0}, 1),
    ],
    ids=["stopping", "plateau", "cosine-ema", "sampling"],
)
def test_it_ends_as_it_would_have_ended(settings, epoch, make_config: MakeConfig, monkeypatch):
    config = make_config(training=settings)
    expected = fit(config.model_copy(update={"name": "whole"}))
    with monkeypatch.context() as patch:
        break_off(patch, epoch)
        with pytest.raises(KilledError):
            fit(config.model_copy(update={"name": "broken"}))

    resumed = resume(config.output / "broken", config)

    assert_same_run(resumed.run, expected.run)
    assert not (resumed.run.folder / "checkpoint.npz").exists()


@pytest.mark.parametrize("epoch", [1, 2, 4], ids=["head", "between", "fine-tuning"])
def test_both_phases_go_on(epoch, make_config: MakeConfig, monkeypatch):
    config = make_config(
        training={
            "epochs": 2,
            "unfreeze": "last:1",
            "fine_tuning": {"epochs": 3, "learning_rate": 1e-3},
        }
    )
    expected = fit(config.model_copy(update={"name": "whole"}))
    with monkeypatch.context() as patch:
        break_off(patch, epoch)
        with pytest.raises(KilledError):
            fit(config.model_copy(update={"name": "broken"}))

    resumed = resume(config.output / "broken", config)

    assert_same_run(resumed.run, expected.run)
    assert resumed.history.phases == ("head",) * 2 + ("fine-tuning",) * 3


def test_a_run_that_never_finished_an_epoch_starts_anew(make_config, monkeypatch):
    config = make_config(training={"epochs": 2})
    expected = fit(config.model_copy(update={"name": "whole"}))
    with monkeypatch.context() as patch:
        patch.setattr(experiment, "train_phases", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            fit(config.model_copy(update={"name": "broken"}))

    assert_same_run(resume(config.output / "broken", config).run, expected.run)


def test_a_training_that_ended_elsewhere_is_not_repeated(make_config, monkeypatch):
    config = make_config(training={"epochs": 9, "patience": 1, "learning_rate": 0.1})
    with monkeypatch.context() as patch:
        patch.setattr(experiment, "remove_checkpoint", lambda _: None)
        first = fit(config.model_copy(update={"name": "first"}))

    def take_over(record):
        assert first.run.read_json("environment.json")["data"] == record["data"]
        return read_checkpoint(first.run)

    with monkeypatch.context() as patch:  # it has not even to be repeated if this is killed
        patch.setattr(experiment, "write_report", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            fit(config.model_copy(update={"name": "broken"}), begun=take_over)

    for result in (
        fit(config.model_copy(update={"name": "second"}), begun=take_over),
        resume(config.output / "broken", config),
    ):
        assert_same_run(result.run, first.run)
        for name in ("history.csv", "predictions.csv"):  # its epochs took as long
            assert (result.run.folder / name).read_text() == (first.run.folder / name).read_text()
        assert not (result.run.folder / "checkpoint.npz").exists()


def break_after_an_epoch(config: ExperimentConfig, monkeypatch) -> Run:
    with monkeypatch.context() as patch:
        break_off(patch, 1)
        with pytest.raises(KilledError):
            fit(config.model_copy(update={"name": "broken"}))
    return Run(config.output / "broken")


def test_images_added_since_are_not_used(make_config, monkeypatch, colours_folder):
    (colours_folder / "red" / "damaged.png").write_bytes(b"no image")
    config = make_config()
    expected = fit(config.model_copy(update={"name": "whole"}))
    run = break_after_an_epoch(config, monkeypatch)
    split = (run.folder / "split.csv").read_text()
    for number, label in enumerate(("red", "red", "green", "green")):
        path = colours_folder / label / f"0{number}-added.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (24, 24), (50 * number, 200, 90)).save(path)
    (colours_folder / "red" / "01.png").rename(colours_folder / "red" / "renamed.png")

    resumed = resume(run.folder, config)

    assert_same_run(resumed.run, expected.run)
    for name in ("split.csv", "bad_images.csv"):
        assert (run.folder / name).read_text() == (expected.run.folder / name).read_text()
    assert (run.folder / "split.csv").read_text() == split
    assert resumed.report.problems == expected.report.problems


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda red: (red / "00.png").unlink(), r"1 missing or unreadable\), such as red/00\.png"),
        (lambda red: Image.new("RGB", (9, 9)).save(red / "00.png"), r"1 changed since"),
        (lambda red: (red / "00.png").rename(red.parent / "blue/x.png"), r"1 of another class now"),
    ],
    ids=["missing", "changed", "relabelled"],
)
def test_other_images_or_labels_are_refused(
    change, message, make_config, monkeypatch, colours_folder
):
    config = make_config()
    run = break_after_an_epoch(config, monkeypatch)
    change(colours_folder / "red")

    with pytest.raises(RunError, match=rf"1 of the 48 images .*{message}.*--config"):
        resume(run.folder, config)


@pytest.mark.parametrize("version", ["current", "earlier"])
def test_other_weights_are_refused_where_they_were_recorded(
    version, make_config, monkeypatch, colours_folder
):
    def write_labels(weight: int) -> None:
        paths = sorted(colours_folder.rglob("*.png"))
        rows = [f"{path.relative_to(colours_folder)},{path.parent.name},{weight}" for path in paths]
        labels.write_text("\n".join(["path,label,weight", *rows]) + "\n")

    labels = colours_folder.parent / "labels.csv"
    write_labels(2)
    config = make_config(data={"labels": labels})
    run = break_after_an_epoch(config, monkeypatch)
    if version == "earlier":
        record = run.read_json("environment.json")
        for part in record["data"].values():
            del part["weights_and_votes_sha256"]
        run.write_json("environment.json", record)
    write_labels(3)

    with (
        pytest.raises(RunError, match=r"weights or votes are no longer those.*--config")
        if version == "current"
        else nullcontext()
    ):
        resume(run.folder, config)


def test_a_damaged_checkpoint_is_named(make_config, monkeypatch):
    config = make_config().model_copy(update={"name": "broken"})
    break_off(monkeypatch, 1)
    with pytest.raises(KilledError):
        fit(config)
    path = config.output / "broken" / "checkpoint.npz"
    path.write_bytes(path.read_bytes()[:-50])

    with pytest.raises(RunError, match=r"checkpoint\.npz is damaged"):
        read_checkpoint(Run(path.parent))


def test_a_run_at_its_end_is_refused(make_config, capsys):
    result = fit(make_config(training={"epochs": 1}))

    assert train(["--resume", str(result.run.folder)]) == 2

    assert "has finished already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--resume", "nowhere"], "nowhere is not a run"),
        (["--resume", "runs/x", "--epochs", "3"], "no other flags than --cache and --devices"),
    ],
)
def test_an_invalid_resume_is_reported(words, message, capsys):
    assert train(words) == 2
    assert message in capsys.readouterr().err


def start(config: ExperimentConfig, folder: Path) -> subprocess.Popen:
    """Starts a training in a process of its own, with the tiny branch as a plugin."""
    plugin = folder / "tiny_plugin.py"
    plugin.write_text(
        "from branches.registry import BranchSpec, register_branch\n"
        "from tests.conftest import build_tiny\n"
        "register_branch(BranchSpec(name='tiny', builder=build_tiny, preprocessing='tf',\n"
        "    min_size=8, reference='none'))\n"
    )
    settings = config.model_dump(mode="json", exclude_none=True) | {"plugins": [str(plugin)]}
    (folder / "settings.yaml").write_text(write_config(settings))
    command = [sys.executable, "-m", "ensemble.train", "--config", str(folder / "settings.yaml")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def wait_for_epoch(run: Run, epoch: int) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        path = run.folder / "log.txt"
        if path.exists() and f"epoch {epoch} of" in path.read_text():
            return
        time.sleep(0.002)
    raise TimeoutError


@pytest.mark.slow
def test_a_process_killed_at_any_moment_goes_on(make_config: MakeConfig, tmp_path):
    training = {
        "epochs": 24,
        "patience": 24,
        "unfreeze": "last:1",
        "fine_tuning": {"epochs": 12, "learning_rate": 1e-3},
    }
    config = make_config(training=training, features={"directory": tmp_path / "cache"})
    expected = fit(config.model_copy(update={"name": "whole"}))
    run = Run(config.output / "killed")
    with start(config.model_copy(update={"name": "killed"}), tmp_path) as process:
        wait_for_epoch(run, 9)
        process.kill()
    progress = read_checkpoint(run)
    assert progress is not None
    assert 8 <= len(progress.history) < 36

    resumed = resume(run.folder, config)

    assert_same_run(resumed.run, expected.run)


@pytest.mark.slow
def test_an_interrupt_ends_politely_and_can_be_gone_on_from(make_config: MakeConfig, tmp_path):
    config = make_config(training={"epochs": 3000, "patience": 3000})
    run = Run(config.output / "stopped")
    with start(config.model_copy(update={"name": "stopped"}), tmp_path) as process:
        wait_for_epoch(run, 5)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)

    assert process.returncode == 130
    assert b"Traceback" not in err
    assert f"--resume {run.folder}".encode() in out
    assert 5 <= len(history_of(run)) < 3000
    assert run.load_model().classes == ("blue", "red")
    progress = read_checkpoint(run)
    assert progress is not None
    assert len(progress.history) == len(history_of(run))


def test_a_run_in_training_is_not_trained_a_second_time(make_config, monkeypatch):
    write, refused = experiment.write_checkpoint, []

    def resume_beside(run, progress):
        write(run, progress)
        with pytest.raises(RunError, match=f"is being trained by process {os.getpid()}"):
            resume(run.folder)
        refused.append(len(progress.history))

    monkeypatch.setattr(experiment, "write_checkpoint", resume_beside)

    result = fit(make_config())

    assert refused == [1, 2, 3, 4]
    assert not (result.run.folder / "lock").exists()
