"""Laws of whole searches, each a command of its own with worker processes."""

import csv
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

pytest.importorskip("keras_tuner")

ROOT = Path(__file__).resolve().parents[4]
PLUGIN = """
from branches import BranchSpec, register_branch

def build(input_shape, **_):
    from keras import Input, Model, layers
    image = Input(input_shape)
    x = layers.Conv2D(8, 3, strides=2, activation="relu")(image)
    return Model(image, layers.Conv2D(12, 3, strides=2, activation="relu")(x), name="small")

register_branch(
    BranchSpec(name="small", builder=build, preprocessing="tf", min_size=8, reference="none")
)
"""

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path, colours_folder: Path) -> Start:
    """Starts the command on a search of a second or two."""
    (tmp_path / "small_branch.py").write_text(PLUGIN)

    def begin(
        spaces: dict[str, Any], environment: dict[str, str] | None = None, **search: Any
    ) -> "subprocess.Popen[str]":
        values = {
            "plugins": [str(tmp_path / "small_branch.py")],
            "data": {"root": [str(colours_folder)], "image_size": 16, "views": 2},
            "model": {"branches": ["small"], "weights": "random", "standardize": True},
            "features": {"directory": str(tmp_path / "cache"), "engine": "keras"},
            "training": {"epochs": 3, "batch_size": 8},
            "output": str(tmp_path / "runs"),
            "name": "mine",
            "search": {"tuner": "grid", "spaces": spaces, **search},
        }
        path = tmp_path / "search.yaml"
        path.write_text(yaml.safe_dump(values))
        return subprocess.Popen(
            [sys.executable, "-m", "ensemble.search", "--config", str(path)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return begin


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "mine"


def finish(process: "subprocess.Popen[str]", code: int = 0) -> str:
    output, _ = process.communicate(timeout=400)
    assert process.returncode == code, output
    return output


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def wait_for_trials(folder: Path, count: int) -> dict[str, int]:
    """Waits until so many trials have ended; returns when each of them did."""
    end = time.monotonic() + 300
    while time.monotonic() < end:
        found = {path.parent.name: path.stat().st_mtime_ns for path in ended(folder)}
        if len(found) >= count:
            return found
        time.sleep(0.05)
    raise AssertionError(f"no {count} trials have ended")


def free_port() -> int:
    """Returns a free port below those that the system gives to connections, a worker's own too."""
    while True:
        port = random.randrange(20_000, 30_000)
        with socket.socket() as place, suppress(OSError):
            place.bind(("127.0.0.1", port))
            return port


def ended(folder: Path) -> list[Path]:
    return sorted((folder / "trials").glob("*/trial.json"))


def probabilities(folder: Path) -> dict[str, float]:
    return {row["name"]: float(row["red"]) for row in read_csv(folder / "predictions.csv")}


@pytest.mark.slow
def test_a_search_records_every_trial_and_trains_the_best(start, folder):
    spaces = {
        "model.head": ["linear", {"name": "dense", "units": 16}],
        "model.branches": {"subsets": ["small", "small:b"]},
        "seed": [1, 2],
        "training.learning_rate": [0.01, 3.0e38],  # no number comes out of the second
    }

    output = finish(start(spaces, trials=20))

    rows = read_csv(folder / "trials.csv")
    assert [int(row["trial"]) for row in rows] == list(range(20))
    failed = [row for row in rows if row["status"] == "failed"]
    assert {row["training.learning_rate"] for row in failed} <= {"3e+38"}
    assert failed
    assert all(row["reason"] for row in failed)
    scores = {row["trial"]: float(row["val_macro_f1"]) for row in rows if row not in failed}
    winner = max(scores, key=lambda trial: (scores[trial], -int(trial)))
    run = folder / f"winner-{int(winner):04}"
    trial = folder / "trials" / f"{int(winner):04}"
    assert str(run) in output
    assert (run / "model.keras").is_file()

    # The winner is its trial, and the training is not repeated: its epochs took as long.
    assert (run / "history.csv").read_text() == (trial / "history.csv").read_text()
    assert probabilities(run) == probabilities(trial)
    report = json.loads((run / "report.json").read_text())
    assert report["metrics"]["macro"]["f1"] == pytest.approx(scores[winner], abs=1e-9)
    assert not list(folder.glob("*/*/checkpoint.npz"))

    # What a trial came to is what a training with the same settings comes to.
    again = ["--config", str(trial / "config.yaml"), "--name", "again"]
    again += ["--features.directory", str(folder.parents[1] / "cache")]
    subprocess.run([sys.executable, "-m", "ensemble.train", *again], check=True, cwd=ROOT)
    expected, found = probabilities(folder.parent / "again"), probabilities(trial)
    assert list(found) == list(expected)
    np.testing.assert_allclose(list(found.values()), list(expected.values()), atol=1e-4)
    ours, theirs = (read_csv(place / "history.csv") for place in (trial, folder.parent / "again"))
    for name in ("epoch", "val_loss", "accuracy"):
        assert [float(row[name]) for row in ours] == pytest.approx(
            [float(row[name]) for row in theirs], abs=1e-4
        )
    ours, theirs = (yaml.safe_load((place / "config.yaml").read_text()) for place in (trial, run))
    ours.pop("output")
    theirs.pop("output")
    assert ours == theirs


@pytest.mark.slow
def test_a_search_that_is_killed_loses_and_repeats_no_trial(start, folder):
    spaces = {
        "training.learning_rate": [0.1, 0.01, 0.001],
        "training.epsilon": [1, 0.1, 1e-4, 1e-7],
    }
    process = start(spaces)
    wait_for_trials(folder, 4)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    time.sleep(1)
    before = wait_for_trials(folder, 4)
    time.sleep(2)
    assert wait_for_trials(folder, 4) == before  # its workers have ended with it
    assert len(before) < 12

    finish(start(spaces))

    after = wait_for_trials(folder, 12)
    assert {name: after[name] for name in before} == before
    rows = read_csv(folder / "trials.csv")
    assert len({(row["training.learning_rate"], row["training.epsilon"]) for row in rows}) == 12
    assert {row["status"] for row in rows} == {"completed"}

    assert "holds another search: `search.spaces" in finish(start({"seed": [1, 2]}), code=2)


@pytest.mark.slow
def test_a_killed_worker_is_replaced(start, folder):
    process = start(
        {"training.learning_rate": [0.1, 0.03, 0.01], "training.epsilon": [1, 0.1]}, workers=1
    )
    wait_for_trials(folder, 2)
    worker, _ = (folder / "worker0.lock").read_text().split()
    os.kill(int(worker), signal.SIGKILL)

    output = finish(process)

    assert "worker0 died (exit code -9) and is started again" in output
    assert len(ended(folder)) == 6
    assert {row["status"] for row in read_csv(folder / "trials.csv")} == {"completed"}


@pytest.mark.slow
def test_the_trial_of_a_killed_worker_is_run_by_another_and_the_chief_ends(start, folder):
    port = free_port()

    def role(name: str) -> dict[str, str]:
        return {
            "KERASTUNER_ORACLE_IP": "127.0.0.1",
            "KERASTUNER_ORACLE_PORT": str(port),
            "KERASTUNER_TUNER_ID": name,
        }

    spaces = {
        "training.learning_rate": [0.1, 0.03, 0.01, 0.003],
        "training.epsilon": [1, 0.1, 0.01],
    }
    chief, first, second = (start(spaces, role(name)) for name in ("chief", "worker0", "worker1"))
    wait_for_trials(folder, 2)
    second.send_signal(signal.SIGKILL)

    output = finish(chief)
    finish(first)
    second.communicate()

    assert "winner-" in output
    assert len(ended(folder)) == 12
    assert {row["status"] for row in read_csv(folder / "trials.csv")} == {"completed"}


@pytest.mark.slow
def test_others_wait_for_a_search_and_other_labels_are_refused(start, folder, colours_folder):
    spaces = {"training.learning_rate": [0.1, 0.03, 0.01, 0.003], "training.epsilon": [1, 0.1]}
    first = start(spaces, workers=1)
    wait_for_trials(folder, 1)
    assert (folder / "lock").read_text().startswith(f"{first.pid} ")
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert "winner-" in finish(start(spaces))

    blue, red, other = (colours_folder / name for name in ("blue", "red", "other"))
    blue.rename(other)
    red.rename(blue)
    other.rename(red)
    output = finish(start(spaces), code=2)

    assert "began with different images or labels" in output
    assert "winner-" not in output
